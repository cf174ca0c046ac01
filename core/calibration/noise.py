"""``noise``: smoothed Gaussian images; needs no data and no gradient, and is the weakest source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.calibration.base import Wanted, register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("noise")
def noise(wanted: Wanted) -> Tensor:
    """Return (count, C, H, W) of unit-variance noise blurred over 3×3."""
    white = torch.randn(wanted.count, *wanted.shape, generator=wanted.generator)
    smooth = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1, count_include_pad=False)
    return smooth / smooth.std().clamp_min(torch.finfo(smooth.dtype).tiny)
