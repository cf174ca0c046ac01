"""How fast a network is alone, and what becomes of that in records and on axes."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from torch import nn

from core.records import SplitRecord, TimeRecord, TrialRecord, parse_record
from core.timing import TIMED_BATCH, timing


class Slow(nn.Module):
    """Takes a millisecond for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        time.sleep(1e-3 * len(x))
        return x


def test_one_image_and_a_batch_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.timing.TIMED_SECONDS", 0.02)
    net = Slow()
    found = timing(net, torch.zeros(5, 1))
    assert set(net.seen) == {1, TIMED_BATCH}, "five images are repeated to a batch"
    assert found.one >= 1
    assert found.batch >= TIMED_BATCH
    assert found.spread >= 0
    assert "torch.utils.benchmark" in sys.modules


def test_a_line_says_what_it_is() -> None:
    trial = TrialRecord(key="k", config={}, status="finished", metrics={"accuracy": 90.0})
    later = TimeRecord(key="k", metrics={"idle_latency_ms": 1.5})
    for record in (trial, later, SplitRecord(key="k", split="test")):
        assert parse_record(record.model_dump_json()) == record
        assert parse_record(record.model_dump_json().encode()) == record
    assert later.joined(trial).metrics == {"accuracy": 90.0, "idle_latency_ms": 1.5}
