"""A target instead of a ratio: the smallest network that loses at most so much, or the largest within a size.

Found by bisection over `STEPS` ratios, as if what is measured never rose again with the ratio (of a size it does not;
of an accuracy it may by a little, and one of the places where it passes the target is found then):

    target = Target.parse("accuracy_drop <= 1")
    ratio, result = reach(
        target,
        make=lambda ratio: compress(prepared, x, ratio=ratio, decomposition="least-squares", calibration=images),
        measure=lambda result: before - accuracy(result.model),
    )
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from core import metrics
from core.errors import UsageError, nearest

T = TypeVar("T")
STEPS = 256
"""Ratios are multiples of 1 / STEPS."""
DROP = "accuracy_drop"
SIZES = metrics.KNOWN_FRACTIONS
SHORT = {short: name for short, name in metrics.SHORT.items() if name in (DROP, *SIZES)}
"""What may be written for a metric."""
FORM = re.compile(r"\s*(\w+)\s*<=\s*(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Target:
    """What a compressed network has to be, as far as one metric goes.

    Attributes:
        metric: ``accuracy_drop`` in percentage points, or a size as a fraction of the original's (`SIZES`).
        most: the largest value that is allowed.
    """

    metric: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"accuracy_drop <= 1"``, ``"drop<=0.5"``, ``"params <= 0.3"``.

        Raises:
            UsageError: it is something else, or a value that nothing or everything meets.
        """
        found = FORM.fullmatch(text)
        if found is None:
            raise UsageError(f"target = {text!r}: write METRIC <= NUMBER, such as 'drop <= 1' or 'params <= 0.3'")
        name, most = SHORT.get(found[1], found[1]), float(found[2])
        if name not in (DROP, *SIZES):
            raise UsageError(f"target = {text!r}: unknown metric {found[1]!r}; {nearest(found[1], [*SHORT, DROP])}")
        if name == DROP and most >= 100:
            raise UsageError(f"target = {text!r}: the drop is in percentage points of accuracy, less than 100")
        if name != DROP and not 0 < most < 1:
            raise UsageError(f"target = {text!r}: a size is a fraction of the original's, above 0 and below 1")
        return cls(name, most)

    def __str__(self) -> str:
        return f"{self.metric}<={self.most:g}"

    @property
    def smallest(self) -> bool:
        """Whether the smallest network is wanted, of those that meet it; else the largest."""
        return self.metric == DROP


def reach(target: Target, make: Callable[[float], T], measure: Callable[[T], float]) -> tuple[float, T]:
    """Find what meets ``target``: for a drop with the largest ratio, for a size with the smallest.

    Args:
        target: what has to be met.
        make: of a ratio, 0 ≤ ratio < 1; where it raises a `UsageError` there is no such network.
        measure: the target's metric of what was made.

    Returns:
        The ratio, and what was made with it.

    Raises:
        UsageError: not even the smallest network is small enough, or with nothing removed too much is lost.
    """
    found: dict[int, T] = {}
    trouble: list[UsageError] = []

    def meets(step: int) -> bool:
        try:
            made = make(step / STEPS)
        except UsageError as error:  # so much cannot go; a size is met there, if at all, by a larger network
            if step == 0:
                raise
            trouble.append(error)
            return not target.smallest
        if fits := measure(made) <= target.most + 1e-9:
            found.clear()
            found[step] = made
        return fits

    inside, outside = (0, STEPS) if target.smallest else (STEPS - 1, -1)
    if not meets(inside):
        raise UsageError(f"target {target} cannot be reached at ratio {inside / STEPS:.4g}: {_remedy(target)}")
    while abs(inside - outside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if meets(middle) else (inside, middle)
    if inside not in found:
        raise UsageError(f"target {target} cannot be reached: {trouble[-1]}")
    return inside / STEPS, found[inside]


def _remedy(target: Target) -> str:
    if target.smallest:
        return "the network loses more with every channel in place; allow a larger drop"
    return "the channels that may go hold less than that; allow a larger size, or let more sets be cut"
