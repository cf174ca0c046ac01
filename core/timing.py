"""How long a network takes when nothing runs beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.graph.trace import as_inputs

TIMED_BATCH, TIMED_SECONDS = 32, 0.2


@dataclass(frozen=True)
class Timing:
    """How long a network takes, one thread, nothing beside it.

    Attributes:
        one: median of one image, ms.
        spread: interquartile range of that, as a share of the median.
        batch: median of `TIMED_BATCH` images at once, ms.
    """

    one: float
    spread: float
    batch: float


def timing(model: nn.Module, images: Tensor | tuple[Tensor, ...]) -> Timing:
    """Time ``model`` with torch's benchmark timer, which warms up, waits for the GPU and repeats for `TIMED_SECONDS`.

    Args:
        model: in eval mode, where the images are.
        images: inputs (N, …), N >= 1, or a tuple of several; repeated where they are fewer than a batch.
    """
    logger = logging.getLogger("torch.utils.cpp_extension")
    before, logger.disabled = logger.disabled, True  # it warns of a compiler that nobody needs here
    try:
        from torch.utils.benchmark import Timer
    finally:
        logger.disabled = before

    inputs = as_inputs(images)

    def measured(count: int) -> Any:
        batch = [x[torch.arange(count, device=x.device) % len(x)] for x in inputs]
        with torch.inference_mode():
            timer = Timer("model(*batch)", globals={"model": model, "batch": batch}, num_threads=1)
            return timer.blocked_autorange(min_run_time=TIMED_SECONDS)

    one = measured(1)
    return Timing(1e3 * one.median, one.iqr / one.median, 1e3 * measured(TIMED_BATCH).median)
