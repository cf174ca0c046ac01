"""How far measured latencies can be trusted, judged by networks of the same size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.metrics import KNOWN_FRACTIONS
from dashboards.points import Point

LATENCY = "latency_fraction"


def latency_noise(points: Sequence[Point]) -> float:
    """The relative standard deviation of the latency among networks of equal size.

    Trials whose parameters, MACs and bytes all agree have the same shapes, so their latencies differ by chance alone:
    s² = Σ (t / t̄ - 1)² / Σ (n - 1) over all such groups. NaN where no two trials agree.
    """
    groups: dict[tuple[float, ...], list[float]] = {}
    for point in points:
        sizes = tuple(point.metrics.get(name, math.nan) for name in KNOWN_FRACTIONS)
        if LATENCY in point.metrics and all(map(math.isfinite, sizes)):
            groups.setdefault(sizes, []).append(point.metrics[LATENCY])
    squares, free = 0.0, 0
    for values in (found for found in groups.values() if len(found) > 1):
        mean = sum(values) / len(values)
        squares += sum((value / mean - 1) ** 2 for value in values)
        free += len(values) - 1
    return math.sqrt(squares / free) if free else math.nan


def noise_in_words(noise: float) -> str:
    """What a reader must know of latencies before choosing by them, for an axis."""
    if not math.isfinite(noise):
        return "measured once each, so chance is not known"
    return f"equal networks differ by ±{100 * noise:.2g} %"
