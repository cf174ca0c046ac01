"""``l1``: the L1 norm of a channel's weights (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from core.criteria.base import register


@register("l1")
def l1(w: Tensor) -> Tensor:
    """Score (n,) = ‖W_i‖_1 of the rows W (n, fan_in)."""
    norms: Tensor = torch.linalg.vector_norm(w, ord=1, dim=1)
    return norms
