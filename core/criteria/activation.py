"""``activation``: how large a channel is on the calibration images, where its consumers read it (mean |h|)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.criteria.base import InputMoments, ScoredSet, register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("activation", needs_calibration=True)
def activation(scored: ScoredSet) -> Tensor:
    """Return the mean magnitude (n,), brought to mean 1 and added up where a set has several consumers."""
    return over_consumers(scored, lambda moments: moments.magnitude)


def over_consumers(scored: ScoredSet, value: Callable[[InputMoments], Tensor]) -> Tensor:
    """Mean over a channel's columns of something (groups, in·k), summed over consumers at mean 1 each, (n,)."""
    total = torch.zeros(scored.size, dtype=torch.float64)
    consumers = scored.seen()
    if not consumers:
        return scored.instead("l1", "no consumer's input can be looked at")
    for consumer in consumers:
        own = consumer.of_columns(value(consumer.moments)).double().mean(1)
        total.index_add_(0, consumer.channel, own / own.mean().clamp_min(torch.finfo(own.dtype).tiny))
    return total
