"""``train-subset``: unlabelled images of the training split, drawn without replacement; never the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.calibration.base import register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("train-subset")
def train_subset(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` (or all, if fewer) of ``images`` (N, C, H, W), in random order."""
    chosen = torch.randperm(len(images), generator=generator)[:count]
    return images[chosen]
