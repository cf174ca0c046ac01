"""``distill``: match the original's outputs on unlabelled images (Ba & Caruana 2014; Hinton et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.recovery.base import register

if TYPE_CHECKING:
    from torch import Tensor


@register("distill")
def distill(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference of the outputs; logits come less their mean."""
    return (outputs - wanted).square().mean()
