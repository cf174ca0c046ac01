"""Synthetic records in the shapes that sweeps end with."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from core.config import TrialConfig
from core.records import TrialRecord

ORIGINAL = {"accuracy": 89.8, "params": 266_610.0, "macs": 266_200.0, "bytes": 1e6, "latency_ms": 0.1}
HARM = {"none": 1.0, "most-similar": 0.55, "nmf": 0.8, "least-squares": 0.16}


def finished(accuracy: float, fraction: float, **config: Any) -> TrialRecord:
    """A finished record with an accuracy in percent and a fraction of parameters left."""
    made = TrialConfig(**config)
    sizes = {"params": fraction, "macs": 0.9 * fraction, "bytes": fraction, "latency": 0.5 + fraction / 2}
    metrics = {f"{name}_fraction": share for name, share in sizes.items()}
    metrics |= {"accuracy": accuracy, "params": 266_610 * fraction, "accuracy_drop": ORIGINAL["accuracy"] - accuracy}
    return TrialRecord(key=made.key, config=made.as_json(), status="finished", metrics=metrics)


def failed(**config: Any) -> TrialRecord:
    made = TrialConfig(**config)
    return TrialRecord(key=made.key, config=made.as_json(), status="failed", reason="the outputs are not finite")


def stopped(fraction: float, **config: Any) -> TrialRecord:
    """A record as a race leaves it behind: sizes and bounds, no accuracy."""
    made = TrialConfig(**config)
    metrics = {f"{name}_fraction": fraction for name in ("params", "macs", "bytes")}
    metrics |= {"accuracy_estimate": 60.0, "accuracy_upper": 99.0}
    reason = "beaten after 1,000 of 10,000 images"
    config = made.as_json()
    return TrialRecord(key=made.key, config=config, status="stopped", reason=reason, metrics=metrics, images=1000)


def sweep(count: int, seed: int = 0) -> list[TrialRecord]:
    """Records as a sweep over everything gives them: better methods higher, fewer parameters lower."""
    rng = random.Random(seed)
    records = []
    for trial in range(count):
        ratio = rng.choice([r / 100 for r in range(10, 95, 5)])
        decomposition = rng.choice(sorted(HARM))
        loss = HARM[decomposition] * (math.exp(4.8 * ratio) - 1) * rng.uniform(0.9, 1.3)
        config = {"ratio": ratio, "criterion": rng.choice(["l1", "l2", "geometric-median"]), "seed": trial}
        accuracy = round(max(10.0, ORIGINAL["accuracy"] - loss), 2)
        records.append(finished(accuracy, (1 - ratio) ** 1.15, decomposition=decomposition, **config))
    return records


CASES: dict[str, Callable[[], Sequence[TrialRecord]]] = {
    "three": lambda: sweep(3),
    "one": lambda: sweep(1),
    "hundred": lambda: [*sweep(100), failed(ratio=0.5), failed(ratio=0.6)],
    "a race": lambda: [*sweep(40), *(stopped(0.4, ratio=0.6, seed=seed) for seed in range(90)), failed(ratio=0.5)],
    "only stopped": lambda: [stopped(0.5, ratio=0.5)],
    "many": lambda: sweep(1500),
    "all equal": lambda: [finished(85.0, 0.5, seed=seed) for seed in range(40)],
    "all as good as the original": lambda: [finished(89.8, 0.1 + seed / 50, seed=seed) for seed in range(40)],
    "slower than the original": lambda: [finished(89.9, 1.4, ratio=0.1), finished(80.0, 1.2, ratio=0.2)],
    "only failures": lambda: [failed(ratio=0.5), failed(ratio=0.6)],
    "nothing": lambda: [],
}
