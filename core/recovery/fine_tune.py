"""``fine-tune``: learn from the labels of the calibration images, as after any pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import torch
from core.recovery.base import register

if TYPE_CHECKING:
    from torch import Tensor


@register("fine-tune", needs_labels=True, lr=1e-3)
def fine_tune(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean cross-entropy, nats."""
    return torch.nn.functional.cross_entropy(outputs, wanted)
