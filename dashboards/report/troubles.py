"""What did not become a point of the plot, and why: layers left alone, trials that failed or were stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.records import TrialRecord

MOST = 100
"""So many different reasons are listed."""


@dataclass(frozen=True)
class Skipped:
    """Layers that were left alone for one reason.

    Attributes:
        reason: in words.
        layers: their names, in alphabetical order.
        trials: in how many trials that happened to one of them.
    """

    reason: str
    layers: tuple[str, ...]
    trials: int


def skipped_layers(records: Sequence[TrialRecord]) -> tuple[Skipped, ...]:
    """What was skipped in ``records``, the most frequent reason first."""
    layers: dict[str, set[str]] = {}
    trials: Counter[str] = Counter()
    for record in records:
        trials.update(set(record.skipped.values()))
        for layer, reason in record.skipped.items():
            layers.setdefault(reason, set()).add(layer)
    return tuple(Skipped(reason, tuple(sorted(layers[reason])), count) for reason, count in trials.most_common(MOST))
