"""``l2``: the L2 norm of a channel's weights (He et al., Soft Filter Pruning, IJCAI 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import register_rows
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register_rows("l2")
def l2(w: Tensor) -> Tensor:
    """Score (n,) = ‖W_i‖_2 of the rows W (n, fan_in)."""
    norms: Tensor = torch.linalg.vector_norm(w, ord=2, dim=1)
    return norms
