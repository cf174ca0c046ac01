"""Records and infos to test with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import TrialConfig, TrialRecord
from sweep.info import SweepInfo
from sweep.quiet import silence

silence()

MakeRecord = Callable[..., TrialRecord]


def record_of(config: TrialConfig, accuracy: float = 80.0, reason: str = "", started_at: float = 0.0) -> TrialRecord:
    left = 1 - config.ratio
    metrics = {
        "accuracy": accuracy,
        "accuracy_drop": 90.0 - accuracy,
        "loss": 0.5,
        **dict.fromkeys(("params", "macs", "bytes", "latency_ms"), 100 * left),
        **{f"{name}_fraction": left for name in ("params", "macs", "bytes", "latency")},
    }
    return TrialRecord(
        key=config.key,
        config=config,
        status="failed" if reason else "finished",
        reason=reason,
        metrics={} if reason else metrics,
        started_at=started_at or time.time(),
        seconds=0.1,
    )


@pytest.fixture
def make_record() -> MakeRecord:
    return lambda ratio=0.5, **kwargs: record_of(TrialConfig(ratio=ratio), **kwargs)


@pytest.fixture
def make_info() -> Callable[[str], SweepInfo]:
    def make(name: str, **changes: object) -> SweepInfo:
        original = {"accuracy": 90.0, "params": 100.0, "macs": 100.0, "bytes": 100.0, "latency_ms": 100.0}
        base = SweepInfo(
            name=name,
            space="toy",
            resolved={"axes": {}},
            search="grid",
            total=10,
            started_at=time.time(),
            original=original,
            baseline_key="b0",
            versions={"torch": "2"},
        )
        return base.model_copy(update=changes)

    return make


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"
