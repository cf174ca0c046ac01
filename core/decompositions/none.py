"""``none``: plain pruning, the baseline every plot shows."""

from __future__ import annotations

from typing import ClassVar

from core.decompositions.base import Decomposition, register


@register("none")
class Nothing(Decomposition):
    """Remove the channels and leave the rest as it is."""

    merges: ClassVar[bool] = False
