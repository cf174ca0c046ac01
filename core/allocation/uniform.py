"""``uniform``: the same ratio for every channel set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from core.allocation.base import register

if TYPE_CHECKING:
    from torch import Tensor


@register("uniform")
def uniform(
    names: Sequence[tuple[str, ...]], scores: Sequence[Tensor], ratio: float, ratios: Mapping[str, float]
) -> list[float]:
    """Return ``ratio`` for each set."""
    return [ratio] * len(names)
