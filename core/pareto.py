"""Dominance, the accuracy-versus-size front, and its hypervolume.

Inside, both objectives are losses to be minimised; the direction that `core.metrics` gives a metric is normalised here
once (:func:`_loss`) and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from core.metrics import metric_named

ALIKE = 1.005
"""Sizes whose ratio is below this are as good as equal."""


class HasMetrics(Protocol):
    """Anything with a ``metrics`` mapping, e.g. a TrialRecord."""

    @property
    def metrics(self) -> dict[str, float]:
        """Values by name."""
        ...


R = TypeVar("R", bound=HasMetrics)


def _loss(record: HasMetrics, name: str) -> float:
    return metric_named(name).loss(record.metrics[name])


def pareto_front(records: Sequence[R], x: str = "params_fraction", y: str = "accuracy") -> list[R]:
    """Return the records that no other one dominates, the best in ``x`` first.

    A record dominates another when it is at least as good in both metrics and better in one; of records equal in both,
    the first given stays. Records without both metrics are left out: failed trials, and those that a race stopped,
    which have no ``accuracy``. O(n log n).

    Raises:
        UnknownNameError: ``x`` or ``y`` is no metric.
    """
    usable = [r for r in records if x in r.metrics and y in r.metrics]
    losses = [(_loss(r, x), _loss(r, y)) for r in usable]
    front: list[R] = []
    best = float("inf")
    for i in sorted(range(len(usable)), key=lambda i: (*losses[i], i)):
        if losses[i][1] < best:
            front.append(usable[i])
            best = losses[i][1]
    return front


def hypervolume(
    records: Sequence[HasMetrics],
    x: str = "params_fraction",
    y: str = "accuracy",
    reference: tuple[float, float] = (1.0, 0.0),
) -> float:
    """Area dominated by the front, bounded by ``reference`` = (worst x, worst y).

    With the defaults (fraction of parameters left, accuracy in percent) the largest possible value is 100.
    Larger is better; points outside the reference add nothing.

    Raises:
        UnknownNameError: ``x`` or ``y`` is no metric.
    """
    x_worst, y_worst = metric_named(x).loss(reference[0]), metric_named(y).loss(reference[1])
    area, floor = 0.0, y_worst
    for record in pareto_front(records, x, y):  # x gets worse, y gets better: each adds the slab beyond the one before
        x_loss, y_loss = _loss(record, x), _loss(record, y)
        if x_loss < x_worst and y_loss < floor:
            area += (x_worst - x_loss) * (floor - y_loss)
            floor = y_loss
    return area


def smallest(records: Sequence[R], x: str = "params_fraction", y: str = "accuracy") -> R:
    """Of records that are all good enough, the best in ``y`` of those whose size ``x`` is as good as the least.

    Budgets that are as large come out a few parameters apart; nobody gives a point of accuracy for so few.
    """
    least = min(record.metrics[x] for record in records)
    most = max(least, ALIKE * least)  # of a damaged record a size may be below zero
    return min((r for r in records if r.metrics[x] <= most), key=lambda r: (_loss(r, y), r.metrics[x]))
