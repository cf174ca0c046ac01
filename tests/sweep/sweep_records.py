"""Records to test with."""

from __future__ import annotations

import time

from core.config import TrialConfig
from core.records import TrialRecord


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
        config=config.as_json(),
        status="failed" if reason else "finished",
        reason=reason,
        metrics={} if reason else metrics,
        started_at=started_at or time.time(),
        seconds=0.1,
    )
