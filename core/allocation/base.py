"""The type of an allocation and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Allocation = Callable[[Sequence[tuple[str, ...]], Sequence["Tensor"], float, Mapping[str, float]], list[float]]
"""(producers' names per set, scores per set, overall ratio, ratios per glob pattern) -> a ratio per set."""

ALLOCATIONS: Registry[Allocation] = Registry("allocation", "core.allocation")
register = ALLOCATIONS.register
