"""The part `decoupling` of docs/proof.md: sizes, and what is said for and against it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.proof import decoupling
from benchmarks.proof.decoupling import WAYS, Way, at, first, said, table
from benchmarks.proof.methods import Task
from benchmarks.proof.originals import Original, parameters
from benchmarks.proof.peers_row import LEFT, Row
from benchmarks.proof.setting import NotRunError
from core.errors import UsageError
from core.slices import Decoupled
from tests.noise import Small
from tests.planting import randomise

BY_NAME = {way.name: way for way in WAYS}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU()]
    net = randomise(nn.Sequential(*layers, nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)))
    return Task(Original("tiny", net.eval(), "0"), *Small(False, tmp_path / "c", tmp_path).calibration(count=64))


@pytest.mark.parametrize("name", [way.name for way in WAYS if "budget" not in way.name])
def test_every_way_keeps_to_its_size(task: Task, name: str) -> None:
    network = at(task, BY_NAME[name], 0.7)
    assert parameters(network) <= 0.7 * task.original.params
    parts = [part for part in network.modules() if isinstance(part, Decoupled)]
    assert bool(parts) == ("decoupling" in name)
    widths = {part.depthwise.in_channels for part in parts}
    assert not name.startswith("decoupling") or widths <= {1, 16}, "no channel is removed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["least-squares, obs, budget", "least-squares, obs, budget + decoupling 0.5"])
def test_a_budget_keeps_to_its_size(task: Task, name: str) -> None:
    assert 0.5 * task.original.params < parameters(at(task, BY_NAME[name], 0.7)) <= 0.7 * task.original.params


def test_what_is_not_that_small_is_not_run(task: Task) -> None:
    with pytest.raises(NotRunError, match="no ratio leaves 10 %"):
        at(task, BY_NAME["decoupling"], 0.1)


@pytest.mark.parametrize(("most", "beyond"), [(7, 0.51), (7, 1.0), (2, 1.0), (10, 1.0)])
def test_the_first_network_that_is_small_enough(most: int, beyond: float) -> None:
    """Each third step is one parameter less; beyond some ratio there is no network at all."""
    tried = []

    def make(ratio: float) -> nn.Module:
        tried.append(ratio)
        if ratio > beyond:
            raise UsageError("a budget of so much cannot be reached")
        return nn.Linear(max(1, 10 - round(256 * (ratio - 0.5)) // 3), 1, bias=False)

    if most < 10 - 256 * (beyond - 0.5) // 3:
        with pytest.raises(NotRunError, match=f"no ratio from 0.500 on leaves {most} parameters"):
            first(make, 0.5, most)
        return
    found = first(make, 0.5, most)
    assert found.weight.numel() == most
    assert tried[0] == 0.5
    assert len(tried) < 14
    with pytest.raises(NotRunError, match=r"from 0\.500 on leaves 1 param"):
        first(lambda _: nn.Linear(5, 1), 0.5, 1)


def rows(gain: float) -> list[Row]:
    """Decoupled rows are ``gain`` points ahead."""

    def row(way: Way) -> Row:
        ahead = gain if "decoupling" in way.name else 0.0
        accuracy = (90.0 + ahead, 80.0 + ahead, 70.0 + ahead)
        sizes = 2 if way.amount is None else 3
        return Row(way.name, "none", accuracy[:sizes], LEFT[:sizes], 3.0, reason="" if sizes == 3 else "too large")

    return [row(way) for way in WAYS]


def test_gains_and_losses_are_said() -> None:
    words = "\n".join(said(rows(2.0)))
    assert "`decoupling` alone over merging (`most-similar`), points: +2.00 at 50 %, +2.00 at 25 %." in words
    assert "What it adds to `most-similar`: decoupling 0.5 +2.00 at 50 %, +2.00 at 25 %, +2.00 at 10 %" in words
    assert "decoupling 0.85 +2.00 at 50 %" in words
    assert words.count("is ahead of") == 3
    assert "`least-squares, obs, budget`: decoupling 0.5 +2.00" in words
    assert "budget" not in words.split("What it adds to `least-squares, obs`: ")[1].split("\n")[0]
    against = "\n".join(said(rows(-1.5)))
    assert against.count("is **not ahead** of") == 3
    assert "by -1.50 points" in against


def test_nothing_of_it_is_said_where_nothing_can_be_decoupled() -> None:
    found = [
        Row(row.method, row.kind, reason="too large") if BY_NAME[row.method].amount is None else row
        for row in rows(-1.0)
    ]
    assert "points: not reached at any size" in "\n".join(said(found))
    assert "| `decoupling` | none | – | – | – | – | nan |" in str(table(found))


def test_a_table_marks_the_best_of_a_column() -> None:
    text = str(table(rows(2.0)))
    assert "| `decoupling` | none | **92.00** | **82.00** | – |" in text
    assert "| `least-squares, obs` | none | 90.00 | 80.00 | 70.00 | 75.5 | 3 |" in text
    assert decoupling.ALONE in text
