"""``apoz``: how often a channel is not zero on the calibration images (Hu et al., network trimming, 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.activation import over_consumers
from core.criteria.base import ScoredSet, register

if TYPE_CHECKING:
    from torch import Tensor


@register("apoz", needs_calibration=True)
def apoz(scored: ScoredSet) -> Tensor:
    """Return the share of values that are not zero (n,): one less the average percentage of zeros (APoZ)."""
    return over_consumers(scored, lambda moments: moments.active)
