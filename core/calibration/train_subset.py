"""``train-subset``: unlabelled images of the training split, drawn without replacement; never the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.calibration.base import Wanted, register
from core.errors import UsageError
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("train-subset")
def train_subset(wanted: Wanted) -> Tensor:
    """Return ``count`` (or all, if fewer) of the pool, in random order.

    Raises:
        UsageError: there is no pool.
    """
    if wanted.pool is None or not len(wanted.pool):
        raise UsageError("calibration 'train-subset' draws from training images, and there are none: pass images=…")
    chosen = torch.randperm(len(wanted.pool), generator=wanted.generator)[: wanted.count]
    return wanted.pool[chosen]
