"""``uniform``: the same ratio for every channel set."""

from __future__ import annotations

from core.allocation.base import AllocationRequest, register


@register("uniform")
def uniform(request: AllocationRequest) -> list[float]:
    """Return the ratio for each set."""
    return [request.ratio] * len(request.sets)
