"""``bn-scale``: how much a channel's batch norm scales it (Liu et al., network slimming, 2017); large ones stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import ScoredSet, register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("bn-scale")
def bn_scale(scored: ScoredSet) -> Tensor:
    """Return |γ| (n,), brought to mean 1 and added up where a set has several norms; without one, what ``l1`` says."""
    total = torch.zeros(scored.size, dtype=torch.float64)
    sizes = [norm.gamma.abs() for norm in scored.norms if not bool(norm.gamma.isnan().all())]
    if not sizes:
        return scored.instead("l1", "no batch norm scales these channels")
    for size in sizes:
        total += (size / size.nanmean().clamp_min(torch.finfo(size.dtype).tiny)).nan_to_num(0.0)
    return total
