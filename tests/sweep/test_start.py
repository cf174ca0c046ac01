"""A search of ratios per layer begins with what budgets of several sizes say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import call

from core.config import TrialConfig
from core.trial import compress_trial
from core.workbench import Workbench
from search_spaces.axis import Choices, Range
from search_spaces.schema import parse_space
from sweep.backend.start import LEFT, budget_hints, nearest_on
from sweep.search.base import Plan, make_planner
from tests.core.nets import images, make

STEPS = {"low": 0.0, "high": 0.95, "step": 0.05}
DOCUMENT = {
    "name": "layers",
    "baseline": {"model": "lenet-300-100", "dataset": "digits"},
    "search": {"algorithm": "nsga2", "samples": 30, "start": "budget"},
    "fixed": {"allocation": "per-site", "criterion": "obs", "decomposition": "least-squares", "calibration_images": 32},
    "axes": {"ratios.conv1": STEPS, "ratios.conv2": STEPS, "ratios.fc*": STEPS},
}
SPACE = """
[baseline]
model = "lenet-300-100"
dataset = "digits"
epochs = 1
[search]
algorithm = "nsga2"
start = "budget"
[fixed]
allocation = "per-site"
[axes]
"ratios.ip1" = { low = 0.0, high = 0.98 }
"ratios.ip2" = { low = 0.0, high = 0.98 }
"""


@pytest.fixture
def bench() -> Workbench:
    net, _ = make("plain")
    x = images(64)
    with torch.no_grad():
        labels = net(x).argmax(1)
    return Workbench(net, x, labels, images(64), baseline_key="b").with_original()


def test_hints_are_what_budgets_spend_on_the_layers(bench: Workbench) -> None:
    space = parse_space(DOCUMENT, "layers.toml")
    hints = budget_hints(space, bench)
    assert 1 < len(hints) <= len(LEFT)
    for hint, left in zip(hints, LEFT, strict=False):
        assert space.assignment(hint) is not None
        budget = {"allocation": "budget", "ratio": 1 - left, "criterion": "obs", "decomposition": "least-squares"}
        result = compress_trial(TrialConfig.parse({**budget, "calibration_images": 32}), bench)
        for site, pattern in zip(result.sites, ("conv1", "conv2", "fc*"), strict=True):
            assert hint.ratios[pattern] == pytest.approx(1 - len(site.kept) / site.size, abs=0.0251)


def test_the_hints_are_tried_first(bench: Workbench) -> None:
    space = parse_space(DOCUMENT, "layers.toml")
    hints = budget_hints(space, bench)
    planner = make_planner(Plan(space, seed=0, hints=hints))
    asked = [planner.ask() for _ in hints]
    assert [config.key for config in asked if config is not None] == [hint.key for hint in hints]


@pytest.mark.slow
def test_a_sweep_begins_with_them_and_goes_on_after_them(tmp_path: Path) -> None:
    (tmp_path / "layers.toml").write_text(SPACE)
    call(tmp_path, "run", "layers.toml", "--samples", "2", "--workers", "1", "--no-models")
    folder = tmp_path / "results/layers"
    hints = json.loads((folder / "sweep.json").read_text())["hints"]
    assert 2 < len(hints) <= len(LEFT)
    call(tmp_path, "resume", "layers", "--samples", "4")
    assert json.loads((folder / "sweep.json").read_text())["hints"] == hints
    records = map(json.loads, (folder / "trials.jsonl").read_text().splitlines())
    configs = [record["config"] for record in records if record.get("kind", "trial") == "trial"][:4]
    assert all(config in hints for config in configs[: len(hints)])


def test_the_nearest_number_of_an_axis() -> None:
    assert nearest_on(Range(0.0, 0.95, 0.05), 0.33) == 0.35
    assert nearest_on(Range(0.0, 0.95, 0.05), 2.0) == 0.95
    assert nearest_on(Range(0.1, 0.9), 0.05) == 0.1
    assert nearest_on(Choices((0.1, 0.5, 0.9)), 0.6) == 0.5
    assert nearest_on(Range(0.3, 0.3, 0.1), 0.6) == 0.3
