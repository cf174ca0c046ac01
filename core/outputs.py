"""What networks give: tensors in any container, and which of them are logits, where only differences count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def real_pairs(originals: Any, outputs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of real numbers in two networks' outputs, side by side.

    Raises:
        ValueError: one network gives more of them than the other.
    """
    leaves = torch.utils._pytree.tree_leaves
    for a, b in zip(leaves(originals), leaves(outputs), strict=True):
        if isinstance(a, torch.Tensor) and a.is_floating_point():
            yield a, b


def are_logits(outputs: Tensor) -> bool:
    """Whether these can be logits (n, classes): a constant added to all of a row changes nothing then."""
    return outputs.dim() == 2 and outputs.shape[1] > 1
