"""``global``: one threshold for all sets, on scores brought to mean 1 in each of them."""

from __future__ import annotations

from core.allocation.base import AllocationRequest, register
from core.lazy import torch


@register("global")
def global_threshold(request: AllocationRequest) -> list[float]:
    """Return the share of each set's channels that are among the lowest ``ratio`` of all channels' scores."""
    if not request.sets:
        return []
    scaled = [own.scores / own.scores.mean().clamp_min(1e-300) for own in request.sets]
    together = torch.cat(scaled)
    lowest = together.argsort(stable=True)[: round(request.ratio * len(together))]
    gone = torch.zeros(len(together), dtype=torch.bool)
    gone[lowest] = True
    parts = torch.split(gone, [own.size for own in request.sets])
    return [min(int(part.sum()), own.size - 1) / own.size for part, own in zip(parts, request.sets, strict=True)]
