r"""``budget``: a share of the whole network's size goes, where that costs least.

What a set of channels costs is its error curve e(m), the relative loss of the layers that read it once its m cheapest
channels are gone (`core.elimination`), times its effect on the network's outputs (`core.appraisal`). Minimised is

    Σ effect_g · e_g(n_g − w_g)    subject to    size(w) ≤ (1 − ratio) · size(n)

over the widths w, by a Lagrangian: for a price λ of size, each set in turn takes the width of least cost + λ·size with
all others as they are, until nothing moves; λ by bisection, and what is left of the budget is spent on the best gains.

The sum holds where errors are small. At extreme sizes they multiply, and the sets had better be cut alike: widths are
c·n·(w/n)^sharpness, with c so that the budget is met. ``sharpness = "auto"`` cuts and refits for each of
`TRIED` and takes the one whose outputs are nearest to the original's on images it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.allocation.base import AllocationRequest, register
from core.errors import UsageError
from core.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np

    from core.footprint import Footprint
else:
    np = Lazy("numpy")

TRIED = (0.0, 0.25, 0.5, 0.75, 1.0)
SWEEPS = 30
HALVINGS = 50


@register("budget", needs_calibration=True)
def budget(request: AllocationRequest) -> list[float]:
    """Return the shares that bring the network to at most 1 − ``ratio`` of its size at the least error.

    Raises:
        UsageError: the smallest widths that are allowed are larger than that.
    """
    appraisal = request.appraise()
    size = appraisal.footprint(request.of)
    steps = [np.lcm(step, request.multiple) for step in appraisal.steps]
    least = np.array([_least(n, step, request.min_channels) for n, step in zip(size.widths, steps, strict=True)])
    limit = (1 - request.ratio) * size.whole
    if size.at(least) > limit:
        raise UsageError(
            f"a budget of {100 * (1 - request.ratio):.4g} % of the {request.of} cannot be reached: with the fewest"
            f" channels in every set {100 * size.at(least) / size.whole:.4g} % are left; lower ratio, min_channels or"
            " multiple, or let more sets be cut"
        )
    if request.ratio == 0:
        return [0.0] * len(request.sets)
    room = Room(size, steps, least, limit)
    costs = [effect * curve for effect, curve in zip(appraisal.effects, appraisal.curves, strict=True)]
    best = room.cheapest(costs)
    if request.sharpness == "auto":
        tried = {sharpness: room.spread(best, sharpness, costs) for sharpness in TRIED}
        chosen = min((appraisal.divergence(widths), sharpness) for sharpness, widths in tried.items())[1]
        request.notes.append(f"sharpness {chosen:g} keeps the outputs best")
        found = tried[chosen]
    else:
        found = room.spread(best, request.sharpness, costs)
    return [float(1 - w / n) for w, n in zip(found, size.widths, strict=True)]


def _least(n: int, step: int, wanted: int) -> int:
    """The smallest width of a set: a multiple of its step, or all of it where that is less."""
    return int(min(n, step * -(-max(1, wanted) // step)))


class Room:
    """The widths that are allowed: multiples of each set's step, or all of it, not below the least, within a limit."""

    def __init__(self, size: Footprint, steps: Sequence[int], least: np.ndarray, limit: float) -> None:
        self._size, self._limit = size, limit
        self._allowed = [
            np.unique(np.append(np.arange(low, n + 1, step), n))
            for low, n, step in zip(least, size.widths, steps, strict=True)
        ]

    def cheapest(self, costs: Sequence[np.ndarray]) -> np.ndarray:
        """The widths (S,) of least cost within the limit; ``costs``: per set, of removing 0, 1, … n channels."""
        low, high = 0.0, 1.0
        scale = sum(float(cost[-1]) for cost in costs) / self._size.whole or 1.0
        while self._size.at(self._at_price(costs, high * scale)) > self._limit:
            low, high = high, high * 4
            if high > 1e12:
                return self.fill(np.array([allowed[0] for allowed in self._allowed]), costs)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self._size.at(self._at_price(costs, middle * scale)) <= self._limit
            low, high = (low, middle) if fits else (middle, high)
        return self.fill(self._at_price(costs, high * scale), costs)

    def _at_price(self, costs: Sequence[np.ndarray], price: float) -> np.ndarray:
        widths = self._size.widths.copy()
        for _ in range(SWEEPS):
            before = widths.copy()
            for number, (allowed, cost) in enumerate(zip(self._allowed, costs, strict=True)):
                _, c1, c2 = self._size.along(number, widths)
                total = cost[len(cost) - 1 - allowed] + price * (c1 * allowed + c2 * allowed**2)
                widths[number] = allowed[int(total.argmin())]
            if bool((widths == before).all()):
                break
        return widths

    def fill(self, widths: np.ndarray, costs: Sequence[np.ndarray]) -> np.ndarray:
        """Spend what is left of the limit on the sets that gain most for their size, a step at a time."""
        widths = widths.copy()
        while True:
            now, best, chosen = self._size.at(widths), -1.0, None
            for number, (allowed, cost) in enumerate(zip(self._allowed, costs, strict=True)):
                place = int(np.searchsorted(allowed, widths[number])) + 1
                if place >= len(allowed):
                    continue
                more = int(allowed[place])
                c0, c1, c2 = self._size.along(number, widths)
                size = c0 + c1 * more + c2 * more**2
                gain = float(cost[len(cost) - 1 - widths[number]] - cost[len(cost) - 1 - more])
                if size <= self._limit and gain / max(size - now, 1e-9) > best:
                    best, chosen = gain / max(size - now, 1e-9), (number, more)
            if chosen is None:
                return widths
            widths[chosen[0]] = chosen[1]

    def spread(self, best: np.ndarray, sharpness: float, costs: Sequence[np.ndarray]) -> np.ndarray:
        """Widths between all sets alike (sharpness 0) and ``best`` (1), as large as the limit allows."""
        shape = (best / self._size.widths) ** sharpness
        low, high = 0.0, 1.0 / float(shape.min())
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self._size.at(self._rounded(middle * shape)) <= self._limit
            low, high = (middle, high) if fits else (low, middle)
        return self.fill(self._rounded(low * shape), costs)

    def _rounded(self, shares: np.ndarray) -> np.ndarray:
        """Allowed widths at or below so much of each set, the least one where none is."""
        wanted = np.minimum(shares, 1.0) * self._size.widths + 1e-9
        return np.array(
            [
                allowed[max(0, int(np.searchsorted(allowed, w, side="right")) - 1)]
                for allowed, w in zip(self._allowed, wanted, strict=True)
            ]
        )
