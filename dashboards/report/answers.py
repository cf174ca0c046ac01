"""The front in words: the smallest network within so many points of the original."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.metrics import METRICS
from core.pareto import pareto_front, smallest
from core.records import TrialRecord

WITHIN = (0.5, 1.0, 2.0, 5.0)
"""Points of accuracy."""
NOUNS = {
    "params_fraction": "the parameters",
    "macs_fraction": "the MACs",
    "bytes_fraction": "the bytes",
    "latency_fraction": "the latency",
    "idle_latency_fraction": "the latency",
}
"""Size on the x axis -> what there is a share of."""
HEADLINE = 1.0
CLOSE = 1e-9
"""Two accuracies that differ by less are the same; they are differences of floats."""


@dataclass(frozen=True)
class Answer:
    """What stays of the network if so much accuracy may go.

    Attributes:
        drop: points of accuracy that may be lost.
        key: of the smallest trial that loses no more (see `core.pareto.smallest`); empty: none does.
    """

    drop: float
    key: str


def make_answers(records: Sequence[TrialRecord], original: Mapping[str, float], x: str) -> tuple[Answer, ...]:
    """One answer for each of `WITHIN`, by the size ``x``."""
    front, found = pareto_front(records, x), []
    for drop in WITHIN:
        least = original.get("accuracy", math.inf) - drop - CLOSE
        within = [record for record in front if record.metrics["accuracy"] >= least]
        found.append(Answer(drop, smallest(within, x).key if within else ""))
    return tuple(found)


def headline(records: Sequence[TrialRecord], original: Mapping[str, float], x: str) -> str:
    """The answer at one point as a sentence, or what there is instead of it."""
    front = pareto_front(records, x)
    if not front:
        return "No trial has finished with a result."
    answers = make_answers(front, original, x)
    [key] = [answer.key for answer in answers if answer.drop == HEADLINE]
    named = {record.key: record for record in front}
    if key:
        where = f" on the {named[key].split} split"
        return f"At most {HEADLINE:g} point below the original{where}: {_size(named[key], x)} ({in_words(named[key])})."
    best = max(front, key=lambda record: record.metrics["accuracy"])
    lost = METRICS["accuracy_drop"].show(original.get("accuracy", math.nan) - best.metrics["accuracy"])
    return f"No trial is within {HEADLINE:g} point; the best loses {lost}: {_size(best, x)} ({in_words(best)})."


def _size(record: TrialRecord, x: str) -> str:
    return f"{share(100 * record.metrics[x])} % of {NOUNS[x]}"


def share(percent: float) -> str:
    """A percentage in as many digits as say something: 24, 4.7, 0.32."""
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def in_words(record: TrialRecord) -> str:
    """A configuration in three words: least-squares, obs, ratio 0.7."""
    amount = record.config.get("target") or (f"ratio {record.ratio:g}" if math.isfinite(record.ratio) else "")
    return ", ".join(map(str, filter(None, (record.decomposition, record.criterion, amount))))
