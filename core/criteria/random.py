"""``random``: drawn from the trial's seed; what a criterion must beat."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from core.criteria.base import ScoredSet, register
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@register("random", random=True)
def random(scored: ScoredSet) -> Tensor:
    """Return uniform draws (n,), other ones for each set and seed."""
    generator = torch.Generator().manual_seed(scored.seed + zlib.crc32(scored.name.encode()))
    return torch.rand(scored.size, generator=generator)
