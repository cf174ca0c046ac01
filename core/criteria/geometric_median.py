"""``geometric-median``: distance to all other channels (He et al., FPGM, CVPR 2019; the merging paper's ``l2-GM``).

A channel near the geometric median of its layer can be replaced by the others, so it goes first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.criteria.base import register


@register("geometric-median")
def geometric_median(w: Tensor) -> Tensor:
    """Score (n,) = Σ_j ‖W_i − W_j‖₂ of the rows W (n, fan_in), in float64.

    The distances are taken without the ‖a‖² − 2ab + ‖b‖² expansion, whose rounding would decide near ties.
    """
    w = w.double()
    return torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
