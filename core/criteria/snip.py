"""``snip``: connection sensitivity summed over a channel (Lee et al., SNIP, 2019); needs labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import ScoredSet, register

if TYPE_CHECKING:
    from torch import Tensor


@register("snip", needs_calibration=True, needs_labels=True)
def snip(scored: ScoredSet) -> Tensor:
    """Return Σ |gradient · weight| over a channel's rows (n,)."""
    return scored.over_producers(lambda sensitivity: sensitivity.magnitude)
