"""What trials are scored by: by labels, or by how often they agree with the original network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.baselines import Baseline, prepare_baseline
from core.config import BaselineConfig, TrialConfig
from core.datasets import ImageDataset, Split
from core.errors import DataError, UnknownNameError, UsageError
from core.evaluators import EVALUATORS
from core.measure import evaluate
from core.race import hardest_first
from core.trial import run_trial
from search_spaces import load_space
from sweep.backend.shared import share
from sweep.backend.workbench import make_bench
from tests.core.nets import images, make


def data(classes: int = 4) -> ImageDataset:
    """Random images; without classes nobody knows their labels."""
    pixels = images(160).sigmoid()
    labels = torch.randint(0, max(1, classes), (160,), generator=torch.Generator().manual_seed(0))
    train, validation, test = (Split(pixels[a:b], labels[a:b]) for a, b in ((0, 80), (80, 120), (120, 160)))
    half = (0.5,) * pixels.shape[1]
    return ImageDataset("noise", train, validation, test, half, half, tuple("0123456789")[:classes])


@pytest.fixture
def baseline() -> Baseline:
    net, _ = make("plain")
    return Baseline(net.eval(), "key", 0.0, BaselineConfig(model="m:f", dataset="m:d"), data(), "checkpoint")


def test_agreement_is_with_the_original_and_its_loss_is_the_divergence(baseline: Baseline) -> None:
    bench = make_bench(baseline, "validation", scored=EVALUATORS.get("agreement")).with_original()
    assert bench.original["accuracy"] == bench.original["test_accuracy"] == 100
    assert bench.original["loss"] == pytest.approx(0, abs=1e-6)
    record = run_trial(TrialConfig(ratio=0.5, decomposition="none"), bench)
    halved = Halved(baseline.model)
    with torch.no_grad():
        p, q = (net(bench.images).log_softmax(1) for net in (baseline.model, halved))
    found = evaluate(halved, bench.images, bench.labels, 7, reference=bench.reference)
    assert found.mean_loss == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-5)
    assert found.accuracy == 100
    assert record.status == "finished"
    assert record.metrics["loss"] > 0


class Halved(torch.nn.Module):
    """As sure as the square root of the original."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.net(x)


def test_workers_and_races_hold_answers_against_the_same(baseline: Baseline) -> None:
    bench = make_bench(baseline, "validation", scored=EVALUATORS.get("agreement")).with_original()
    config = TrialConfig(ratio=0.6, decomposition="none")
    wanted = run_trial(config, bench)
    for other in (share(bench).build(), hardest_first(bench, probe=5), hardest_first(share(bench).build())):
        found = run_trial(config, other)
        for name in ("accuracy", "loss"):
            assert found.metrics[name] == pytest.approx(wanted.metrics[name], rel=1e-5)
    test = share(bench).build().test
    assert test is not None
    assert bench.test is not None
    assert test.reference is not None
    assert bench.test.reference is not None
    assert torch.equal(test.reference, bench.test.reference)


def test_labels_count_where_they_are_asked_for(baseline: Baseline) -> None:
    bench = make_bench(baseline, "validation").with_original()
    assert bench.reference is None
    assert bench.original["accuracy"] < 90, "the labels are random"


def test_without_labels_only_agreement_says_something(baseline: Baseline) -> None:
    blind = replace(baseline, dataset=data(0))
    assert make_bench(blind, "validation", scored=EVALUATORS.get("agreement")).train_labels is None
    with pytest.raises(DataError, match=r"dataset 'noise' has no labels: take an evaluator that needs none, eval"):
        make_bench(blind, "validation")


def test_what_needs_labels_is_refused_without_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("core.baselines.load_data", lambda *_, **__: data(0))
    net, _ = make("plain")
    monkeypatch.setattr("core.baselines.load_model", lambda *_, **__: net)
    monkeypatch.setattr("core.baselines.require_code", lambda name: None)
    config = BaselineConfig(model="m:f", dataset="m:d")
    with pytest.raises(
        UsageError, match=r"dataset 'noise' has no labels, so 'm:f' can neither be trained on it nor be"
    ):
        prepare_baseline(config, tmp_path)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    known = config.model_copy(update={"checkpoint": tmp_path / "net.pt"})
    with pytest.raises(UsageError, match="and leave out expected_accuracy"):
        prepare_baseline(known.model_copy(update={"expected_accuracy": 90.0}), tmp_path)
    assert prepare_baseline(known, tmp_path).accuracy == 100
    assert prepare_baseline(known, tmp_path).doubts == ()


def test_an_evaluator_has_a_name_and_a_space_keeps_it() -> None:
    assert EVALUATORS.names() == ["agreement", "classification", "per-class", "segmentation", "task"]
    space = load_space("digits-quick", {"evaluation.evaluator": "agreement"})
    assert space.settled()["evaluation"] == {"split": "validation", "evaluator": "agreement"}
    assert load_space("digits-quick").settled()["evaluation"] == {"split": "validation"}, "as in sweeps of before"
    with pytest.raises(
        UnknownNameError, match=r"evaluation\.evaluator: unknown evaluator 'agree'; did you mean 'agreem"
    ):
        load_space("digits-quick", {"evaluation.evaluator": "agree"})
