"""The type of a criterion and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Criterion = Callable[["Tensor"], "Tensor"]
"""Scores (n,) of the n channels of one producer from its rows W (n, fan_in); higher = kept.

For a linear layer without batch norm the bias is W's last column (methods.md, Notation).
"""

CRITERIA: Registry[Criterion] = Registry("criterion", "core.criteria")
register = CRITERIA.register
