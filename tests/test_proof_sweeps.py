"""What docs/proof.md says of cost: its arithmetic and its verdicts, on figures made by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from benchmarks import merge_speed, racing, scale
from benchmarks._sweeps import Memory, cpu_of
from benchmarks.merge_speed import Merging
from benchmarks.proof import cost, sweeps
from core.compress import prepare
from core.decompositions.most_similar import MostSimilar
from core.models import load_model
from core.records import TrialRecord


def record(key: str, start: float, seconds: float, evaluating: float, accuracy: float, **more: object) -> TrialRecord:
    fractions = {f"{name}_fraction": 0.5 for name in ("params", "macs", "bytes")}
    return TrialRecord.model_validate(
        {
            "key": key,
            "config": {},
            "status": "finished",
            "started_at": start,
            "seconds": seconds,
            "evaluate_seconds": evaluating,
            "images": 100,
            "metrics": {"accuracy": accuracy, **fractions},
            **more,
        }
    )


def test_where_the_time_of_workers_goes() -> None:
    """Two workers, each with trials of 0.8 s, 0.6 of them evaluation, one every second: a fifth is neither."""
    records = [record(f"{w}{i}", i + 0.5 * w, 0.8, 0.6, 50.0) for i in range(50) for w in range(2)]
    memory = Memory(cpu=[(10.0 * i, 15.0 * i) for i in range(10)])
    found = sweeps.paced(records, memory, 2)
    assert (found.rate, found.cpu) == pytest.approx((2.0, 0.75))
    assert (found.evaluating, found.merging, found.rest) == pytest.approx((0.6, 0.2, 0.2))


def test_cpu_between_looks() -> None:
    memory = Memory(cpu=[(0.0, 0.0), (2.0, 1.0), (4.0, 5.0)])
    assert memory.cpu_seconds(1.0, 3.0) == pytest.approx(2.5)
    assert math.isnan(Memory().cpu_seconds(0.0, 1.0))


def test_cpu_of_a_session_is_that_of_its_processes() -> None:
    burn = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"]
    with subprocess.Popen(
        burn, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = cpu_of(process.pid)
        process.communicate("\n")
    if not found:
        pytest.skip("the system does not say")
    assert list(found) == [process.pid]
    assert found[process.pid] >= 0.4


def test_a_shared_machine_is_said() -> None:
    assert "Not alone**: 3.2 other processes" in sweeps.company(3.2, 2)
    assert "Nothing else ran on the 4 cores" in sweeps.company(0.1, 4)


def test_what_a_race_loses_of_the_front_is_said() -> None:
    full = [record("a", 0, 1, 0.5, 80.0), record("b", 1, 1, 0.5, 70.0)]
    stopped = record("b", 1, 0.6, 0.1, 70.0, status="stopped", images=10, metrics={"accuracy_upper": 75.0})
    said = "\n\n".join(map(str, sweeps._raced(full, [full[0], stopped])))
    assert "0 of 1 over params_fraction" in said
    assert "| images evaluated | 200 | 110 | 1.82 |" in said
    assert "| trials stopped early | 0 | 1 |  |" in said
    lost = [record("a", 0, 1, 0.5, 79.0), stopped]
    assert "1 of 1 over params_fraction" in "\n".join(map(str, sweeps._raced(full, lost)))
    assert "only 1.00 times as fast" in "\n".join(map(str, sweeps._raced(full, full)))


def test_pace_is_over_the_trials_before_each_look() -> None:
    times = [float(i) for i in range(100)] + [100 + 2.0 * i for i in range(100)]
    assert scale.paces(times, [50, 200], 40) == pytest.approx([1.0, 0.5])


def test_what_is_not_fast_enough_is_said() -> None:
    said = "\n\n".join(map(str, cost._loops(Merging(loops=4.0, products=0.25, scales=0.01, bare=0.4, further=0.1))))
    assert "| scale matrices here, from the inner products | 0.010 | 400 |" in said
    assert "not reached by: inner products and scale matrices here (15 times)" in said
    assert "`compress` of the bare network (10 times)" in said
    assert "cost 1/16 of them" in said
    fast = "\n\n".join(map(str, cost._loops(Merging(loops=4.0, products=0.01, scales=0.01, bare=0.05, further=0.02))))
    assert "Against us" not in fast


def test_loops_and_here_are_the_same_work() -> None:
    """Else their times could not be compared: the loops' matrix is that of `most-similar`."""
    torch.manual_seed(0)
    model = load_model("vgg-small", num_classes=10, in_channels=1).eval()
    conv, norm = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d)][:2]
    for tensor, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5), (norm.running_var, 0.5, 1.5)):
        tensor.data.uniform_(low, high)
    w = conv.weight.detach().flatten(1)
    prepared = prepare(model, torch.zeros(1, 1, 32, 32))
    [signature] = prepared.signatures(prepared.channels.sets[0], covariances=False).values()
    kept = w.abs().sum(1).topk(len(w) // 2).indices.sort().values
    here = MostSimilar(threshold=0.1, lam=0.85).merge(signature, kept).z
    assert int((here != 0).sum()) > len(kept)
    torch.testing.assert_close(merge_speed._scale_matrix(w, norm), here.float(), rtol=1e-4, atol=1e-5)


def test_racing_adds_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[tuple[str, ...]]()

    def run(results: object, *words: str) -> tuple[list[TrialRecord], None]:
        ran.append(words)
        return [], None

    monkeypatch.setattr(racing, "run_sweep", run)
    racing.both("--samples", "3")
    assert [words[-1] for words in ran] == ["3", "--race"]
