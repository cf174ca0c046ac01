"""``taylor``: how much the loss changes without a channel, to first order (Molchanov et al. 2019); needs labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import ScoredSet, Sensitivity, register

if TYPE_CHECKING:
    from torch import Tensor


@register("taylor", needs_calibration=True, needs_labels=True)
def taylor(scored: ScoredSet) -> Tensor:
    """Return the mean over batches of (Σ gradient · weight)² over a channel's rows (n,)."""

    def of_rows(sensitivity: Sensitivity) -> Tensor:
        return sensitivity.products.square().mean(0)

    return scored.over_producers(of_rows)
