"""``per-site``: a ratio for each named site, what an optimiser or a published configuration sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from core.allocation.base import register

if TYPE_CHECKING:
    from torch import Tensor


@register("per-site")
def per_site(
    names: Sequence[tuple[str, ...]], scores: Sequence[Tensor], ratio: float, ratios: Mapping[str, float]
) -> list[float]:
    """Return the ratio of the first pattern that matches one of a set's producers, else ``ratio``."""

    def of(producers: tuple[str, ...]) -> float:
        found = (r for pattern, r in ratios.items() if any(fnmatchcase(p, pattern) for p in producers))
        return next(found, ratio)

    return [of(producers) for producers in names]
