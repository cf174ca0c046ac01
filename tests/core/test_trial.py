"""One trial: a pure function from a configuration to a record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.config import TrialConfig
from core.trial import run_trial
from core.workbench import Workbench
from tests.core.nets import images, make


@pytest.fixture
def bench() -> Workbench:
    net, _ = make("plain")
    x = images(64)
    with torch.no_grad():
        labels = net(x).argmax(1)
    return Workbench(net, x, labels, images(32), baseline_key="b").with_original()


def test_a_finished_record_is_complete(bench: Workbench) -> None:
    config = TrialConfig(ratio=0.5)
    record = run_trial(config, bench)
    assert record.status == "finished"
    assert record.key == config.key
    names = {"accuracy", "loss", "accuracy_drop"}
    sizes = {"params", "macs", "bytes", "latency_ms"}
    fractions = {"params_fraction", "macs_fraction", "bytes_fraction", "latency_fraction"}
    assert set(record.metrics) == names | sizes | fractions
    kept = sum(p.numel() for p in make("plain")[0].parameters())
    assert record.metrics["params_fraction"] == record.metrics["params"] / kept
    assert record.metrics["accuracy_drop"] == pytest.approx(100 - record.metrics["accuracy"])
    assert [s["name"] for s in record.sites] == ["conv1", "conv2", "fc1"]
    assert record.skipped == {"fc2": "it is the network's output"}
    assert 0 < record.evaluate_seconds < record.seconds
    assert record.provenance["baseline"] == "b"


@pytest.mark.parametrize("method", ["none", "most-similar", "nmf", "least-squares"])
def test_a_trial_is_reproducible_and_leaves_the_bench_as_it_was(bench: Workbench, method: str) -> None:
    config = TrialConfig(ratio=0.5, decomposition=method, seed=3)
    first = run_trial(config, bench)
    run_trial(TrialConfig(ratio=0.75, decomposition="least-squares"), bench)
    second = run_trial(config, bench)
    exact = {"accuracy", "loss", "params", "macs", "bytes"}
    assert {k: first.metrics[k] for k in exact} == {k: second.metrics[k] for k in exact}
    assert bench.original["accuracy"] == 100.0


def test_a_decoupled_trial_counts_what_is_there_and_says_so(bench: Workbench) -> None:
    whole = run_trial(TrialConfig(ratio=0.5), bench)
    record = run_trial(TrialConfig(ratio=0.5, options={"decoupling": 1.0}), bench)
    assert record.status == "finished"
    assert record.metrics["params"] < whole.metrics["params"]
    assert record.metrics["macs"] < whole.metrics["macs"]
    assert record.sites == whole.sites
    (note,) = record.notes
    assert note.startswith("decoupled: conv1 into 1, conv2 into 1 (depthwise, pointwise) terms, at most ")
    assert run_trial(TrialConfig(options={"decoupling": 1.0}, sites=("fc1",)), bench).status == "failed"


def test_read_only_memory_is_never_written_to(bench: Workbench) -> None:
    """Arrays from an object store are read-only; writing to a tensor over them would crash or corrupt other workers."""
    array = bench.images.numpy().copy()
    before = array.copy()
    bench.images = torch.from_numpy(array)
    assert run_trial(TrialConfig(decomposition="least-squares"), bench).status == "finished"
    assert np.array_equal(array, before)


def test_a_trial_that_raises_is_a_failed_record(bench: Workbench) -> None:
    record = run_trial(TrialConfig(sites=("nowhere",)), bench)
    assert record.status == "failed"
    assert record.reason.startswith("sites: 'nowhere' matches no producer")
    assert record.metrics == {}


def test_a_metric_that_is_not_finite_fails_the_trial(bench: Workbench) -> None:
    bench.prepared.channels.graph.model.fc2.bias.data.fill_(torch.nan)
    record = run_trial(TrialConfig(), bench)
    assert record.status == "failed"
    assert "metric 'loss' is nan: the compressed network's outputs are not finite" in record.reason
