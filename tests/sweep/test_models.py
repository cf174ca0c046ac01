"""The networks on a front beside the records: what is made, what goes, and what a failure or a signal costs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from core.errors import NeuronMergingError
from core.evaluators import USUAL
from core.export import save
from core.records import TimeRecord, TrialRecord
from sweep import session
from sweep.backend.workbench import device_beside, idle_gpu
from sweep.export import models
from sweep.export.models import make_models
from sweep.export.rebuild import Rebuilder, differs
from sweep.reporting.progress import PlainReporter
from sweep.session import Session
from sweep.storage.address import place
from sweep.storage.info import ClusterRequest
from sweep.storage.reader import StoredSweep, read_sweep
from sweep.tracking import TrackingReport

FIXTURES = Path(__file__).parents[1] / "fixtures" / "results-v1"


class Silent(PlainReporter):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def line(self, text: str) -> None:
        pass

    def step(self, done: int, total: int, text: str) -> None:
        self.steps.append((done, total))


@pytest.fixture
def sweep(tmp_path: Path) -> StoredSweep:
    shutil.copytree(FIXTURES, tmp_path / "results")
    return read_sweep(tmp_path / "results", "grid", whole=True)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the networks that were written; their files are small ones."""
    keys: list[str] = []

    def write(folder: Path, rebuilder: Any, record: TrialRecord) -> TimeRecord:
        keys.append(record.key)
        save(nn.Linear(1, 1), folder / f"{record.key}.safetensors", {"key": record.key})
        (folder / f"{record.key}.md").touch()
        return TimeRecord(key=record.key, metrics={"idle_latency_ms": 1.0})

    monkeypatch.setattr(models, "_write", write)
    monkeypatch.setattr(Rebuilder, "bench", None)
    return keys


def test_what_is_missing_is_made_and_what_left_the_front_goes(sweep: StoredSweep, made: list[str]) -> None:
    folder, reporter = sweep.folder / "models", Silent()
    timed: list[TimeRecord] = []
    assert make_models(Rebuilder(sweep.folder.parent, sweep, reporter), reporter, timed.append) == {}
    assert [record.key for record in timed] == made
    front = {path.stem for path in folder.glob("*.safetensors")}
    assert set(made) == front == {path.stem for path in folder.glob("*.md")}
    assert len(front) >= 2
    assert reporter.steps == [(number, len(front)) for number in range(len(front) + 1)]
    first, second, *_ = made
    made.clear()
    for name in ("0123456789abcdef.md", "0123456789abcdef.safetensors", "README.md", "mine.safetensors"):
        (folder / name).touch()
    (folder / f"{first}.md").unlink()
    (folder / f"{second}.safetensors").write_bytes(b"damaged")
    assert make_models(Rebuilder(sweep.folder.parent, sweep, reporter), reporter) == {}
    assert sorted(made) == sorted([first, second])
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "mine.safetensors",
        *(f"{key}.{end}" for key in front for end in ("md", "safetensors")),
    }
    made.clear()
    assert make_models(Rebuilder(sweep.folder.parent, sweep, reporter), reporter) == {}
    assert made == []


def test_one_that_fails_costs_the_others_nothing(
    sweep: StoredSweep, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = models._write

    def fails_at_first(*words: Any) -> TimeRecord:
        found = write(*words)
        if len(made) == 1:
            raise NeuronMergingError("it broke\nhere")
        return found

    monkeypatch.setattr(models, "_write", fails_at_first)
    failed = make_models(Rebuilder(sweep.folder.parent, sweep, Silent()), Silent())
    assert failed == {made[0]: "it broke"}
    assert len(made) >= 2


def test_a_network_leaves_room_for_records(
    sweep: StoredSweep, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.export.models.shutil.disk_usage", lambda _: SimpleNamespace(free=800_000))
    failed = make_models(Rebuilder(sweep.folder.parent, sweep, Silent()), Silent())
    large = {r.key for r in sweep.records if r.metrics["bytes"] > 400_000}
    assert set(failed) == large & {*failed, *made}
    assert failed
    assert all("MB are free; free some, and resume" in reason for reason in failed.values())
    assert not large & set(made)


def broken_off(sweep: StoredSweep, monkeypatch: pytest.MonkeyPatch, work: Any) -> tuple[int, dict[str, str]]:
    """How a session ends that does ``work`` instead of making networks."""
    monkeypatch.setattr(session, "make_models", work)
    own = SimpleNamespace(
        _results=sweep.folder.parent, _store=SimpleNamespace(info=sweep.info, append=list), _reporter=Silent()
    )
    report = TrackingReport("", 0, 0, "")
    return Session._write_models(own, report)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "code", "what"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "told to")])
def test_a_signal_breaks_it_off_at_once(
    sweep: StoredSweep, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, what: str
) -> None:
    before = signal.getsignal(number)

    def work(*_: Any) -> dict[str, str]:
        os.kill(os.getpid(), number)
        time.sleep(60)
        return {}

    started = time.monotonic()
    found, failed = broken_off(sweep, monkeypatch, work)
    assert time.monotonic() - started < 30
    assert found == code
    assert what in failed["of the front"]
    assert f"'sweep resume grid{place(sweep.folder.parent)}' makes those that are missing" in failed["of the front"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), NeuronMergingError("the original is gone")])
def test_nothing_that_goes_wrong_loses_the_sweep(
    sweep: StoredSweep, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def work(*_: Any) -> dict[str, str]:
        raise error

    assert broken_off(sweep, monkeypatch, work) == (0, {"of the front": str(error)})


@pytest.mark.parametrize(
    ("gpus", "recovered", "most"), [(0.0, False, 0.1), (0.0, True, 0.1), (0.25, False, 0.4), (0.25, True, 2.1)]
)
def test_how_far_a_network_may_be_from_its_record(gpus: float, recovered: bool, most: float) -> None:
    """One image of a thousand, and what a GPU does that adds up in another order each time."""
    bench: Any = SimpleNamespace(scored=USUAL, total=1000)
    for off, wanted in ((most - 0.01, False), (most + 0.01, True)):
        found = differs(
            {"accuracy": 90 + off}, {"accuracy": 90.0}, bench, ClusterRequest(None, gpus), recovered=recovered
        )
        assert found is wanted


@pytest.mark.parametrize(
    ("there", "cluster", "said"),
    [
        (True, ClusterRequest(), True),
        (False, ClusterRequest(), False),
        (True, ClusterRequest(2, 0.5), False),
        (True, ClusterRequest(address="auto"), False),
    ],
)
def test_a_gpu_that_nobody_asked_for_is_mentioned(
    there: bool, cluster: ClusterRequest, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert bool(idle_gpu(cluster)) is said
    assert device_beside(cluster) == ("cuda" if there and cluster.gpus_per_trial else "cpu")
