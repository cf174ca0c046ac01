"""``l1``: the L1 norm of a channel's weights (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import register_rows
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register_rows("l1")
def l1(w: Tensor) -> Tensor:
    """Score (n,) = ‖W_i‖_1 of the rows W (n, fan_in)."""
    norms: Tensor = torch.linalg.vector_norm(w, ord=1, dim=1)
    return norms
