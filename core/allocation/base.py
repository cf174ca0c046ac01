"""What an allocation is given and what it returns, and the registry of them.

An allocation spreads the ratio over the channel sets. It returns for each of them the share of its channels that goes:

    @register("uniform")
    def uniform(request: AllocationRequest) -> list[float]:
        return [request.ratio] * len(request.sets)

One that measures what a set is worth asks ``request.appraise()``, and says so with ``needs_calibration``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from core.appraisal import Appraisal

Sharpness = float | Literal["auto"]


@dataclass(frozen=True)
class AllocatedSet:
    """A channel set, as an allocation sees it.

    Attributes:
        producers: names of the layers that write its channels.
        size: n, how many there are.
        scores: (n,) under the criterion; higher: kept.
    """

    producers: tuple[str, ...]
    size: int
    scores: Tensor


@dataclass(frozen=True)
class AllocationRequest:
    """How much is to be removed, and of what.

    Attributes:
        sets: the channel sets.
        ratio: overall; share of the channels, or what the allocation takes it for.
        ratios: of single sets, by glob pattern of their producers.
        of: what size a budget is of: ``params``, ``macs`` or ``bytes``.
        sharpness: from 0, all sets alike, to 1, as their errors say; "auto": what keeps the outputs best.
        min_channels: so many stay in each set, if it has them.
        multiple: widths are rounded to multiples of it.
        appraise: gives what removals cost, measured on calibration images.
        notes: what the allocation could not do or has decided, in words; it appends to them.
    """

    sets: Sequence[AllocatedSet]
    ratio: float
    ratios: Mapping[str, float]
    of: Literal["params", "macs", "bytes"]
    sharpness: Sharpness
    min_channels: int
    multiple: int
    appraise: Callable[[], Appraisal]
    notes: list[str] = field(default_factory=list)


Spread = Callable[[AllocationRequest], list[float]]


@dataclass(frozen=True)
class Allocation:
    """A registered allocation.

    Attributes:
        spread: gives each set the share of its channels that is removed, 0 ≤ share < 1.
        needs_calibration: whether it measures, so that calibration images are required.
    """

    spread: Spread
    needs_calibration: bool = False


ALLOCATIONS: Registry[Allocation] = Registry("allocation", "core.allocation")


def register(name: str, *, needs_calibration: bool = False) -> Callable[[Spread], Spread]:
    """File a function of an `AllocationRequest` as the allocation ``name``."""

    def file(spread: Spread) -> Spread:
        ALLOCATIONS.register(name)(Allocation(spread, needs_calibration))
        return spread

    return file
