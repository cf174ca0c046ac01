"""``agreement``: what the original network says of each image, so that nobody needs labels.

Top-1 agreement in percent, 100 for the original itself, and the mean of KL(p ‖ q) over the images, p being the
original's class probabilities and q the compressed network's. A network that agrees may be wrong where the original is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.evaluators.base import Targets, register

if TYPE_CHECKING:
    from torch import Tensor


@register("agreement", label="top-1 agreement with the original", word="agreement", loss="divergence from the original")
def agreement(logits: Tensor, labels: Tensor) -> Targets:
    """Take the original's answers for right."""
    return Targets(logits.argmax(1), logits.log_softmax(1))
