"""The writer of docs/proof.md: its page, what it does without a peer or the data, its cache, and its arithmetic."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.proof import __main__ as proof
from benchmarks.proof import activations, originals, peers, recovered, search, setting, torch_pruning_rows
from benchmarks.proof.cost import exponent
from benchmarks.proof.factors import of_set, preactivations, rank_correlation
from benchmarks.proof.memory import peak
from benchmarks.proof.methods import HEADLINE, OURS, Task, ratio_for
from benchmarks.proof.originals import Original, original, sound
from benchmarks.proof.page import INTRO, TITLES, assemble, marks, not_run, written
from benchmarks.proof.peers_row import LEFT, Comparison, Row
from benchmarks.proof.peers_text import text, verdicts
from benchmarks.proof.recovered import Trained
from benchmarks.proof.setting import NotRunError, Section, Table
from core.compress import prepare
from core.config import TrialConfig
from core.datasets import ImageDataset
from core.errors import DataError
from core.records import TrialRecord
from sweep.search.base import Plan
from tests.noise import Small

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(False, tmp_path / "cache", tmp_path)


@pytest.fixture
def task(small: Small) -> Task:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10))
    return Task(Original("tiny", net.eval(), "0"), *small.calibration(count=64))


def test_a_run_writes_its_sections_and_leaves_the_others() -> None:
    first = assemble("", {"paper": "the *table*", "cost": "seconds"})
    second = assemble(first, {"cost": "fewer seconds\n\n| a |"})
    assert "the *table*" in second
    assert "fewer seconds" in second
    assert "\nseconds" not in second
    assert second.count("begin -->") == len(TITLES)
    assert assemble(second, {}) == second


def test_a_section_says_how_it_came_about(small: Small) -> None:
    section = Section("5 images, seed 3", ["words", Table(["a", "b"], [["1", "2"]])], ["torch", "no-such-package"])
    how, words, table = written(section, small, "paper", 130).split("\n\n")
    for part in (
        "make proof PARTS=paper",
        "2 min",
        "5 images, seed 3",
        "cores",
        torch.__version__,
        "no no-such-package",
    ):
        assert part in how
    assert words == "words"
    assert table == "| a | b |\n| --- | --: |\n| 1 | 2 |"
    assert "make proof-full" in written(section, replace(small, full=True), "paper", 1)


def test_a_row_of_another_width_is_no_row() -> None:
    with pytest.raises(AssertionError):
        str(Table(["a", "b"], [["1"]]))


def test_the_page_is_as_it_was_written() -> None:
    page = (ROOT / "docs/proof.md").read_text()
    assert page == assemble(page, {}), "edit benchmarks/proof, not the page"
    assert page.startswith(INTRO)
    assert page.count("make proof") > len(TITLES)


def test_data_that_is_missing_is_said_and_the_rest_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ImageDataset:
        raise DataError(f"{name} is not on this machine")

    monkeypatch.setattr(setting, "load_dataset", missing)
    page = tmp_path / "page.md"
    page.write_text(assemble("", {"cost": "kept"}))
    words = ["--page", str(page), "--cache", str(tmp_path)]
    assert proof.main(["factors", "peers", *words]) == 0
    found = page.read_text()
    assert found.count("not run: fashion-mnist is not on this machine") == 2
    assert "kept" in found


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        proof.main(["papers"])
    assert "papers" in capsys.readouterr().err


def test_a_missing_peer_leaves_its_rows_marked(small: Small, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(NotRunError, match="pip install"):
        torch_pruning_rows.library()
    rows = [peers.measured(method, task, small) for method in (OURS[0], OURS[2], torch_pruning_rows.ROWS[0])]
    assert [bool(row.reason) for row in rows] == [False, False, True]
    page = "\n".join(map(str, text([Comparison("tiny", 1, "0", 10.0, rows)])))
    assert "| torch-pruning | not run: torch-pruning is not here" in page
    assert "nothing to compare with of torch-pruning" in page
    assert f"`{HEADLINE}` is" in page


def test_training_afterwards_trains(small: Small, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovered, "STEPS", 2)
    row = recovered.trained(OURS[1], task, small)
    assert len(row.accuracy) == len(recovered.STAGES)
    assert not row.reason


@pytest.mark.slow
def test_every_method_keeps_to_its_size(small: Small, task: Task) -> None:
    pytest.importorskip("torch_pruning")
    net = task.original
    rows = [peers.measured(method, task, small) for method in peers.methods(net)]
    assert len(rows) == 6 + 6, "those with batch norms measured anew make no sense here"
    for row in rows:
        assert not row.reason
        assert all(0 < left <= share for left, share in zip(row.left, LEFT, strict=True)), row
        assert row.seconds > 0


def row(name: str, kind: str, *accuracy: float) -> Row:
    return Row(name, kind, accuracy, LEFT)


def test_a_verdict_against_us_is_said() -> None:
    ours, peer = row(HEADLINE, "ours", 90, 80, 70), row("l1, alike", "torch-pruning", 91, 60, 50)
    other = row("gram", "the paper", 95, 90, 80)
    said = "\n".join(verdicts(Comparison("net", 1, "0", 95, [ours, peer, other])))
    assert "is ahead of the best of torch-pruning, `l1, alike`, by" in said
    assert "is **not ahead** of the best of the others written anew here, `gram`, by -" in said
    assert said.count("against us: at") == 3


def test_networks_that_are_really_smaller_are_named() -> None:
    ours, peer = row(HEADLINE, "ours", 90, 80, 70), row("l1, alike", "torch-pruning", 91, 60, 50)
    plain = row("least-squares, l1", "ours", 90, 80, 69)
    rows = [ours, replace(plain, left=(0.5, 0.25, 0.05)), replace(peer, left=(0.5, 0.21, 0.08))]
    said = "\n".join(verdicts(Comparison("net", 1, "0", 95, rows)))
    assert "to be fair: `l1, alike` really have 50.0, 21.0, 8.0 %" in said
    assert "`least-squares, l1`, all sets alike, has more hypervolume than the budget" in said
    assert "to be fair" not in "\n".join(verdicts(Comparison("net", 1, "0", 95, [ours, plain, peer])))


def test_a_verdict_after_training_is_said() -> None:
    ours = Trained("net", HEADLINE, "ours", (80.0, 85.0, 90.0))
    peer = Trained("net", "l1, alike", "torch-pruning", (20.0, 86.0, 90.0))
    gone = Trained("net", "Taylor", "torch-pruning", reason="not here")
    said = list(recovered.said([ours, peer, gone]))
    assert "is ahead of the best other one, `l1, alike` (torch-pruning, 20.00 %), by 60.00" in said[0]
    assert "is **not ahead** of" in said[1]
    assert "by -1.00 points" in said[1]
    assert "is **not ahead** of" in said[2]
    assert recovered.in_order([ours, gone], [peer]) == [ours, peer, gone]
    page = "\n".join(map(str, recovered.text([[ours, peer, gone]])))
    assert "not run: not here" in page
    assert "| `l1, alike` | torch-pruning | 20.00 | **86.00** | **90.00** |" in page


def test_hypervolume_of_a_row_by_hand() -> None:
    assert row("x", "ours", 90, 80, 70).volume == pytest.approx(0.5 * 90 + 0.25 * 80 + 0.15 * 70)


def test_a_size_that_rises_again_is_found_on_the_way_up(task: Task) -> None:
    """A global threshold may leave more at an extreme ratio than before it."""
    whole = task.original.params

    def make(ratio: float) -> nn.Module:
        left = 1 - ratio if ratio < 0.7 else 1.0
        return nn.Linear(max(1, math.ceil(left * whole)), 1, bias=False)

    assert ratio_for(task, "rises", 0.5, make) == 0.5
    with pytest.raises(NotRunError, match="no ratio leaves 10 %"):
        ratio_for(task, "rises", 0.1, make)


def test_a_cached_network_is_used_only_if_its_weights_are_those(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(originals.NETS, "tiny", {"model": "lenet-300-100", "epochs": 1, "batch_size": 50})
    first = original("tiny", small)
    [path] = small.cache.glob("*.safetensors")
    assert sound(path)
    again = original("tiny", small)
    assert again.checksum == first.checksum
    assert "trained again" not in capsys.readouterr().err
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, path)
    assert not sound(path)
    assert original("tiny", small).checksum == first.checksum
    assert "trained again" in capsys.readouterr().err
    path.with_suffix(".sha256").unlink()
    assert not sound(path)


def test_peak_memory_sees_what_is_gone_again() -> None:
    with peak() as found:
        big = torch.ones(16_000_000)
        del big
    if math.isnan(found.megabytes):
        pytest.skip("the system does not say")
    assert 50 < found.megabytes < 200


def test_exponent_and_rank_correlation() -> None:
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    assert rank_correlation([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_errors_of_factors_against_slow_loops(task: Task) -> None:
    """Weights and activations of the first set, from W and x themselves."""
    net, kept = task.original.model, torch.arange(0, 24, 2)
    first = net[1]
    y = preactivations(net, task.images)["1"]
    found = of_set(prepare(net, task.images[:1]), "1", kept, y, "none", {})
    w = torch.cat([first.weight, first.bias[:, None]], 1).double().detach()
    gone = torch.arange(1, 24, 2)
    assert found[0] == pytest.approx(float(w[gone].square().sum() / w.square().sum()))
    assert found[1] == pytest.approx(float(y[:, gone].square().sum() / y.square().sum()))
    h = y.relu()
    assert found[2] == pytest.approx(float(h[:, gone].square().sum() / h.square().sum()))
    assert found[3:] == pytest.approx((0, 0))
    dense = of_set(prepare(net, task.images[:1]), "1", kept, y, "nmf", {})
    assert dense[0] < found[0]
    assert dense[3] > 0, "what is put behind ReLU is too much"
    assert dense[4] > 1


def test_not_run_keeps_its_command(small: Small) -> None:
    assert not_run(small, "paper", "no checkpoint") == "*`make proof PARTS=paper`: not run: no checkpoint.*"
    assert marks("paper")[0] in assemble("", {})


def test_a_planner_is_replayed_on_a_table() -> None:
    """Known configurations are not run again, and every planner hears of its own."""
    names, ran = ["a", "b", "c", "d"], list[str]()

    def run(config: TrialConfig) -> TrialRecord:
        ran.append(config.key)
        left = 1 - sum(config.ratios.values()) / 4
        sizes = {f"{name}_fraction": left for name in ("params", "macs", "bytes")}
        common = {
            "key": config.key,
            "config": config.as_json(),
            "status": "finished",
            "started_at": 0.0,
            "seconds": 0.0,
        }
        return TrialRecord(**common, metrics={"accuracy": 90 * left**0.1, **sizes})

    known: dict[str, TrialRecord] = {}
    grid = search.asked_of(Plan(search.space(names, "grid", from_budget=False), 0), run, known)
    assert len(grid) == len(search.GRID) ** 4
    for algorithm in ("random", "nsga2"):
        asked = search.asked_of(Plan(search.space(names, algorithm, from_budget=False), 0), run, known)
        assert len(asked) == search.TRIALS
    assert len(ran) == len(set(ran)) == len(known)
    curve = search.volumes(grid)
    assert curve == sorted(curve)
    assert search.at(curve, 1000) == curve[-1]


def test_what_a_search_begins_with_is_compared() -> None:
    curves = {
        "random": [[1.0] * 10 + [9.0] * 86, [1.0] * 96],
        "NSGA-II from the budget": [[8.0] * 95 + [8.5], [8.0] * 96],
    }
    said = search.said(curves, 10.0)
    assert "random after 11 trials (1 of 2 seeds)" in said
    assert "NSGA-II from the budget is the best at the end" in said
    assert "Against us" not in said
    assert "Against us: TPE end behind random" in search.said({**curves, "TPE": [[0.5] * 96]}, 10.0)
    assert "is not the best at the end, grid is" in search.said({**curves, "grid": [[9.9] * 96]}, 10.0)
    assert "| random | 10.0 (10.0–10.0) |" in str(search.table(curves, 10.0))


def test_where_merging_costs_is_said(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        (name, method, ratio): [50.0 + (method == "merged") * (-3 if name == "tanh" else 3)]
        for name in activations.ACTIVATIONS
        for method in activations.METHODS
        for ratio in activations.RATIOS
    }
    said = activations.said(found)
    assert "ReLU +3.0" in said
    assert "merging is worse than pruning: tanh at 50 %, tanh at 70 %." in said
    monkeypatch.setattr(activations, "RECIPE", replace(activations.RECIPE, epochs=1, batch_size=75))
    run: activations.Found = {}
    for name in ("tanh", "ReLU"):
        activations.measured(name, activations.ACTIVATIONS[name], 0, small, run)
    assert len(run) == 2 * (1 + 2 * len(activations.METHODS))
    y = torch.linspace(-3, 3, 50)
    for name, module in activations.ACTIVATIONS.items():
        assert torch.allclose(module()(2 * y), 2 * module()(y)) == (name in activations.HOMOGENEOUS)
