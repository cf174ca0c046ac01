"""``obs``: what the layers that read a channel lose without it, after they have made up for it as well as they can.

Block optimal brain surgeon on the consumers' least squares, one channel after the other (`core.elimination`). A
channel's score is what the set has lost by the time it goes: the order of removal, and the set's error curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.base import ScoredSet, register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("obs", needs_calibration=True, cumulative=True)
def obs(scored: ScoredSet) -> Tensor:
    """Return the summed relative loss (n,) of a set's consumers up to each channel's removal."""
    from core.elimination import eliminate, parts_of

    consumers = scored.seen()
    if not consumers:
        return scored.instead("l1", "no consumer's input can be looked at")
    order, spent = eliminate(parts_of(consumers), scored.size)
    scores = torch.empty(scored.size, dtype=torch.float64)
    scores[order] = spent
    return scores
