"""Records and infos to test with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_records import record_of

from core.config import TrialConfig
from core.records import TrialRecord
from sweep.quiet import silence
from sweep.storage.info import REQUESTED, SweepInfo, SweepRequest, SweepState

silence()

MakeRecord = Callable[..., TrialRecord]


@pytest.fixture
def make_record() -> MakeRecord:
    return lambda ratio=0.5, **kwargs: record_of(TrialConfig(ratio=ratio), **kwargs)


@pytest.fixture
def make_info() -> Callable[[str], SweepInfo]:
    def make(name: str, **changes: object) -> SweepInfo:
        original = {"accuracy": 90.0, "params": 100.0, "macs": 100.0, "bytes": 100.0, "latency_ms": 100.0}
        request = SweepRequest(name=name, space="toy", resolved={"axes": {}}, search="grid")
        state = SweepState(
            total=10, started_at=time.time(), original=original, baseline_key="b0", versions={"torch": "2"}
        )
        asked = {field: value for field, value in changes.items() if field in REQUESTED}
        stated = {field: value for field, value in changes.items() if field not in REQUESTED}
        return SweepInfo(replace(request, **asked), replace(state, **stated))

    return make


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"
