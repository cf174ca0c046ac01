"""Trials that are scored by a function: on the bench, on a worker, rebuilt, and with functions that fail."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.baselines import Baseline, prepare_baseline
from core.config import BaselineConfig, TrialConfig
from core.datasets import ImageDataset, Split
from core.errors import ModelError, UsageError
from core.evaluators import EVALUATORS, find_evaluator
from core.tasks import Task
from core.trial import run_test, run_trial
from core.workbench import Workbench
from search_spaces import load_space
from sweep.backend.shared import share
from sweep.backend.workbench import make_bench, measured
from sweep.export.formats import WRITERS
from sweep.search.racing import check_race
from sweep.storage.info import SweepRequest

CONFIG = TrialConfig(ratio=0.5, criterion="obs", decomposition="least-squares", calibration_images=40)


class Pair(nn.Module):
    """Takes two inputs, and tells a number in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(16, 1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"told": self.head(torch.cat([self.left(left).relu(), self.right(right).relu()], 1)).squeeze(1)}


def rmse(model: nn.Module, batches: Any, device: str) -> dict[str, float]:
    away, count = 0.0, 0
    for (left, right), wanted in batches:
        away += float((model(left.to(device), right.to(device))["told"].cpu() - wanted).square().sum())
        count += len(wanted)
        left.zero_()  # as a careless network may
    return {"rmse": (away / count) ** 0.5, "count": count}


def drawn(count: int, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    left, right = torch.rand(count, 3, generator=rng), torch.rand(count, 2, generator=rng)
    return (left, right), left.sum(1) - right.prod(1)


def make_task(**changes: Any) -> Task:
    (left, right), _ = drawn(64, 0)
    given: dict[str, Any] = {
        "example_inputs": (left[:1], right[:1]),
        "calibration": (left, right),
        "batches": [drawn(20, 1), drawn(12, 2)],
        "test": [drawn(30, 3)],
        "evaluate": rmse,
        "name": "pairs",
    }
    return Task(**{**given, **changes})


pytestmark = pytest.mark.usefixtures("forgotten_metrics")


@pytest.fixture
def baseline() -> Baseline:
    torch.manual_seed(0)
    config = BaselineConfig(model="m:f", dataset="m:d")
    return Baseline(Pair().eval(), "key", 100.0, config, make_task(), "checkpoint")


def scored(name: str = "task") -> Any:
    return find_evaluator(name, "rmse", "min")


def test_a_task_is_searched_on_its_batches_and_tested_on_others(baseline: Baseline) -> None:
    bench, _ = measured(make_bench(baseline, "validation", scored=scored()))
    assert bench.original["count"] == 32
    assert bench.original["test_count"] == 30
    record, tested = run_trial(CONFIG, bench), run_test(CONFIG, bench)
    assert (record.status, record.images, tested.images) == ("finished", 32, 30), record.reason
    assert record.metrics["rmse_drop"] == pytest.approx(record.metrics["rmse"] - bench.original["rmse"])
    assert record.metrics["params_fraction"] < 0.6
    assert "accuracy" not in record.metrics
    worker = pickle.loads(pickle.dumps(share(bench))).build()
    assert not worker.logits, "of what a task gives nobody has said that it is logits"
    again = run_trial(CONFIG, worker)
    for name in ("rmse", "count", "params", "macs"):
        assert again.metrics[name] == pytest.approx(record.metrics[name])
    assert run_test(CONFIG, worker).metrics["rmse"] == pytest.approx(tested.metrics["rmse"])
    assert [float(x.sum()) for x in drawn(20, 1)[0]] == [
        float(x.sum()) for x in baseline.dataset.part("validation")[0][0]
    ]


def test_what_a_task_gives_is_distilled_and_spread_as_values(baseline: Baseline) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    (left, _), _ = drawn(64, 0)

    def away(model: nn.Module, batches: Any, device: str) -> float:
        return float((model(left) - net(left)).square().mean().sqrt())

    task = make_task(example_inputs=left[:1], calibration=left, evaluate=away)
    bench, _ = measured(make_bench(replace(baseline, model=net, dataset=task), "validation", scored=scored()))
    assert not bench.logits
    plain = TrialConfig(ratio=0.6, decomposition="none", calibration_images=64)
    record = run_trial(plain, bench)
    better = run_trial(TrialConfig(**{**plain.as_json(), "recovery": "distill", "recovery_steps": 200}), bench)
    assert better.metrics["rmse"] < 0.5 * record.metrics["rmse"], better.reason
    assert better.recovery["after"] == pytest.approx(better.metrics["rmse"] ** 2, rel=1), "the same thing is measured"
    budget = run_trial(TrialConfig(**{**CONFIG.as_json(), "allocation": "budget"}), bench)
    assert budget.status == "finished", budget.reason


def test_without_other_batches_there_is_no_test(baseline: Baseline) -> None:
    alone = replace(baseline, dataset=make_task(test=None))
    assert not make_bench(alone, "validation", scored=scored()).has_test
    assert not make_bench(baseline, "test", scored=scored()).has_test
    bench, _ = measured(make_bench(baseline, "test", scored=scored()))
    assert bench.original["count"] == 30


def benched(baseline: Baseline, evaluate: Callable[..., Any]) -> Workbench:
    return measured(make_bench(replace(baseline, dataset=make_task(evaluate=evaluate)), scored=scored()))[0]


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda: {}["x"], r"the evaluator fails on the original network: KeyError: 'x'"),
        (lambda: None, r"on the original network: the evaluator gave no number for 'rmse' \(it returned nothing\)"),
        (lambda: float("nan"), r"on the original network: metric 'rmse' is nan"),
        (lambda: {"away": 1.0}, r"gave 'away' first, and the score is 'rmse': set evaluation\.metric = \"away\""),
    ],
)
def test_what_fails_on_the_original_ends_it_at_once(baseline: Baseline, gives: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        benched(baseline, lambda model, batches, device: gives())


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda: {}["x"], "KeyError: 'x'"),
        (
            lambda: None,
            "the evaluator gave no number for 'rmse' (it returned nothing): return a float, or a dict of them",
        ),
        (lambda: float("inf"), "metric 'rmse' is inf: the compressed network's outputs are not finite"),
        (
            lambda: {"rmse": 1.0, "more": 2.0},
            "the evaluator gave 'more', which it did not give of the original network",
        ),
    ],
)
def test_what_fails_later_fails_that_trial(baseline: Baseline, gives: Any, words: str) -> None:
    original = sum(p.numel() for p in Pair().parameters())

    def evaluate(model: nn.Module, batches: Any, device: str) -> Any:
        return 1.0 if sum(p.numel() for p in model.parameters()) == original else gives()

    record = run_trial(CONFIG, benched(baseline, evaluate))
    assert record.status == "failed"
    assert record.reason.startswith(words)


def test_a_target_is_of_the_score(baseline: Baseline) -> None:
    bench = benched(baseline, rmse)
    record = run_trial(CONFIG.model_copy(update={"target": "accuracy_drop<=0.2"}), bench)
    assert record.metrics["rmse_drop"] <= 0.2
    assert record.metrics["params_fraction"] < 1


def test_what_a_task_cannot_have_is_refused(
    baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"'pairs' is a Task, which is not scored image by image: set eval"):
        make_bench(baseline)
    with pytest.raises(UsageError, match="'pairs' has no evaluate: give it one"):
        make_bench(replace(baseline, dataset=make_task(evaluate=None)), scored=scored())
    bench = benched(baseline, rmse)
    for change, words in (
        ({"calibration": "noise"}, "calibration 'noise' makes or reads images"),
        ({"criterion": "taylor"}, "learns from labels"),
    ):
        record = run_trial(TrialConfig.parse({**CONFIG.as_json(), **change}), bench)
        assert record.status == "failed"
        assert words in record.reason
    bare = measured(make_bench(replace(baseline, dataset=make_task(calibration=None)), scored=scored()))[0]
    assert "brings no calibration inputs" in run_trial(CONFIG, bare).reason
    with pytest.raises(UsageError, match=r"'pairs' is a Task, and this is for datasets of images"):
        baseline.images  # noqa: B018
    with pytest.raises(UsageError, match="that are answered rightly, and evaluator 'segmentation'"):
        check_race(load_space("digits-quick", {"evaluation.evaluator": "segmentation"}))
    monkeypatch.setattr("core.baselines.load_data", lambda *_, **__: make_task())
    monkeypatch.setattr("core.baselines.require_code", lambda name: None)
    monkeypatch.setattr("core.baselines.load_model", lambda *_, **__: Pair().eval())
    config = BaselineConfig(model="m:f", dataset="m:d")
    with pytest.raises(UsageError, match=r"'pairs' is a Task, for which networks are not trained here: give 'm:f'"):
        prepare_baseline(config, tmp_path)
    with pytest.raises(UsageError, match="mean is of images, and 'pairs' brings inputs of its own"):
        prepare_baseline(BaselineConfig(model="m:f", dataset="m:d", mean=0.5), tmp_path)
    monkeypatch.setattr("core.baselines.load_model", lambda *_, **__: nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"'m:f' does not take the example inputs \(1, 3\), \(1, 2\) of 'pairs' \("):
        prepare_baseline(config, tmp_path)


def test_a_function_measures_on_images_too() -> None:
    rng = torch.Generator().manual_seed(0)
    train, validation, test = (Split(torch.rand(30, 1, 4, 4, generator=rng), torch.arange(30) % 3) for _ in range(3))
    data = ImageDataset("noise", train, validation, test, (0.5,), (0.5,), ("a", "b", "c"))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    config = BaselineConfig(model="m:f", dataset="m:d")
    own = replace(find_evaluator("task", "accuracy"), measure=right)
    original = Baseline(net.eval(), "k", 0.0, config, data, "checkpoint")
    bench, _ = measured(make_bench(original, "validation", scored=own))
    usual, _ = measured(make_bench(original, "validation"))
    for name in ("accuracy", "test_accuracy"):
        assert bench.original[name] == pytest.approx(usual.original[name])
    detailed, _ = measured(make_bench(original, "validation", scored=EVALUATORS.get("per-class")))
    assert detailed.original["accuracy"] == pytest.approx(usual.original["accuracy"])
    assert detailed.original["loss"] == pytest.approx(usual.original["loss"])
    classes = [detailed.original[f"class_{number}_accuracy"] for number in range(3)]
    assert sum(classes) / 3 == pytest.approx(usual.original["accuracy"]), "there are as many of each"
    assert detailed.original["worst_class_accuracy"] == min(classes)
    assert "top5_accuracy" not in detailed.original, "there are three classes"
    found, wanted, worker = (run_trial(CONFIG, one) for one in (bench, usual, share(bench).build()))
    assert found.metrics["accuracy"] == worker.metrics["accuracy"] == pytest.approx(wanted.metrics["accuracy"])


def right(model: nn.Module, batches: Any, device: str) -> float:
    pairs = [(model(images.to(device)).argmax(1), labels) for images, labels in batches]
    return 100 * sum(int((told == labels).sum()) for told, labels in pairs) / sum(len(labels) for _, labels in pairs)


def test_networks_of_two_inputs_are_written_and_read(baseline: Baseline, tmp_path: Path) -> None:
    inputs = drawn(4, 5)[0]
    for form in ("safetensors", "pt2"):
        WRITERS[form](copy.deepcopy(baseline.model), inputs, tmp_path / f"net.{form}", {})
    again = torch.export.load(tmp_path / "net.pt2").module()
    with torch.no_grad():
        assert torch.allclose(again(*inputs)["told"], baseline.model(*inputs)["told"])


def test_segmentation_says_what_it_is() -> None:
    found = EVALUATORS.get("segmentation")
    assert (found.score.name, found.score.title, found.word, found.by_image) == ("miou", "mean IoU (%)", "mIoU", False)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"evaluator": "m:f", "direction": "up"},
            "evaluation.direction = 'up': input should be 'max' or 'min'",
        ),
        ({"evaluator": "m:f", "metric": 5}, "resolved.evaluation.metric = 5: input should be a valid string"),
        ({"evaluator": "m:f", "metric": "macs"}, "metric = 'macs': name what the evaluator gives"),
        ({"evaluator": 3}, "unknown evaluator '3'"),
    ],
)
def test_a_stored_sweep_whose_score_is_damaged_says_so(table: dict[str, Any], words: str) -> None:
    request = SweepRequest(name="a", space="a", resolved={"evaluation": table}, search="grid")
    with pytest.raises(UsageError, match=words):
        request.scored  # noqa: B018
    assert SweepRequest(name="a", space="a", resolved={"evaluation": 3}, search="grid").scored.word == "accuracy"
