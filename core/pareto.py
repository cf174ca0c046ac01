"""Dominance, the accuracy-versus-size front, and its hypervolume.

Inside, both objectives are losses to be minimised: ``size`` as it is and ``-accuracy``; the direction is
normalised here once (:func:`_loss`) and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class HasMetrics(Protocol):
    """Anything with a ``metrics`` mapping, e.g. a TrialRecord."""

    @property
    def metrics(self) -> dict[str, float]:
        """Values by name."""
        ...


R = TypeVar("R", bound=HasMetrics)


def _loss(record: HasMetrics, x: str, y: str) -> tuple[float, float]:
    return record.metrics[x], -record.metrics[y]


def pareto_front(records: Sequence[R], x: str = "params_fraction", y: str = "accuracy") -> list[R]:
    """Return the records that no other one dominates, by increasing ``x`` (smaller is better).

    ``y`` is better when larger. A record dominates another when it is at least as good in both and better in
    one; of records equal in both, the first given stays. Records without both metrics are left out: failed trials,
    and those that a race stopped, which have no ``accuracy``.
    O(n log n).
    """
    usable = [r for r in records if x in r.metrics and y in r.metrics]
    order = sorted(range(len(usable)), key=lambda i: (*_loss(usable[i], x, y), i))
    front: list[R] = []
    best = float("inf")
    for i in order:
        loss = _loss(usable[i], x, y)[1]
        if loss < best:
            front.append(usable[i])
            best = loss
    return front


def hypervolume(
    records: Sequence[HasMetrics],
    x: str = "params_fraction",
    y: str = "accuracy",
    reference: tuple[float, float] = (1.0, 0.0),
) -> float:
    """Area dominated by the front, bounded by ``reference`` = (largest x, smallest y).

    With the defaults (fraction of parameters left, accuracy in percent) the largest possible value is 100.
    Larger is better; points outside the reference add nothing.
    """
    x_ref, y_ref = reference
    area, floor = 0.0, y_ref
    inside = [r for r in pareto_front(records, x, y) if r.metrics[x] < x_ref and r.metrics[y] > y_ref]
    for record in inside:  # x rises, y rises: each adds the slab above the one before
        area += (x_ref - record.metrics[x]) * (record.metrics[y] - floor)
        floor = record.metrics[y]
    return area
