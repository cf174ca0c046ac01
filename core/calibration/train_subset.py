"""``train-subset``: unlabelled images of the training split, drawn without replacement; never the test split."""

from __future__ import annotations

import torch
from torch import Tensor

from core.calibration.base import register


@register("train-subset")
def train_subset(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` (or all, if fewer) of ``images`` (N, C, H, W), in random order."""
    chosen = torch.randperm(len(images), generator=generator)[:count]
    return images[chosen]
