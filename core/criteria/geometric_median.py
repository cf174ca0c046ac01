"""``geometric-median``: distance to all other channels (He et al., FPGM, CVPR 2019; the merging paper's ``l2-GM``).

A channel near the geometric median of its layer can be replaced by the others, so it goes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import register_rows

if TYPE_CHECKING:
    from torch import Tensor


@register_rows("geometric-median")
def geometric_median(w: Tensor) -> Tensor:
    """Score (n,) = Σ_j ‖W_i − W_j‖₂ of the rows W (n, fan_in), from ‖W_i‖² − 2⟨W_i, W_j⟩ + ‖W_j‖² in float64."""
    w = w.double()
    products = w @ w.T
    squares = products.diagonal()
    distances = (squares[:, None] - 2 * products + squares[None, :]).clamp_min(0).sqrt()
    return distances.fill_diagonal_(0).sum(dim=1)
