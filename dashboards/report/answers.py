"""The front in words: the smallest network within so many points of the original."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.evaluators import USUAL, Evaluator
from core.metrics import METRICS, drop_of
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


def make_answers(
    records: Sequence[TrialRecord], original: Mapping[str, float], x: str, scored: Evaluator = USUAL
) -> tuple[Answer, ...]:
    """One answer for each of `WITHIN`, by the size ``x``; of a score that has no points there are none."""
    score = scored.score
    if score.unit != "%":
        return ()
    front, found = pareto_front(records, x, score.name), []
    for drop in WITHIN:
        most = score.loss(original[score.name]) + drop + CLOSE if score.name in original else -math.inf
        within = [record for record in front if score.loss(record.metrics[score.name]) <= most]
        found.append(Answer(drop, smallest(within, x, score.name).key if within else ""))
    return tuple(found)


def headline(records: Sequence[TrialRecord], original: Mapping[str, float], x: str, scored: Evaluator = USUAL) -> str:
    """The answer at one point as a sentence, or what there is instead of it."""
    score = scored.score
    front = pareto_front(records, x, score.name)
    if not front:
        return "No trial has finished with a result."
    best = min(front, key=lambda record: score.loss(record.metrics[score.name]))
    if score.unit != "%":
        before = f" (original {scored.show(original)})" if score.name in original else ""
        return f"The best: {scored.word} {scored.show(best.metrics)}{before}, {_size(best, x)} ({in_words(best)})."
    answers = make_answers(front, original, x, scored)
    [key] = [answer.key for answer in answers if answer.drop == HEADLINE]
    named = {record.key: record for record in front}
    if key:
        where = f" on the {named[key].split} split"
        return f"At most {HEADLINE:g} point below the original{where}: {_size(named[key], x)} ({in_words(named[key])})."
    apart = score.loss(best.metrics[score.name]) - score.loss(original.get(score.name, math.nan))
    lost = METRICS[drop_of(score.name)].show(apart)
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
