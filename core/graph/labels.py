"""Label tensors: of the shape of the value they describe, they hold the atom that each element belongs to.

They are mostly expanded views (stride 0), so they cost next to no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from core.graph.atoms import NONE, compact


def tensors_in(labels: Any) -> Iterator[Tensor]:
    """Every label tensor in a nested structure."""
    if isinstance(labels, Tensor):
        yield labels
    elif isinstance(labels, Mapping):
        for item in labels.values():
            yield from tensors_in(item)
    elif isinstance(labels, (tuple, list)):
        for item in labels:
            yield from tensors_in(item)
    elif isinstance(labels, slice):
        yield from tensors_in((labels.start, labels.stop, labels.step))


def carries(labels: Any) -> bool:
    """Whether any element belongs to a channel."""
    return any(bool((compact(found)[0] != NONE).any()) for found in tensors_in(labels))


def unlabelled(value: Any) -> Any:
    """Labels for a value that carries no channel: NONE everywhere, in the value's own structure."""
    if isinstance(value, Tensor):
        return torch.zeros((), dtype=torch.int32).expand(value.shape)
    if isinstance(value, Mapping):
        return {key: unlabelled(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(unlabelled(item) for item in value) if type(value) in (tuple, list) else None
    return None


def spread(labels: Tensor, axis: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Expand channel labels (C,) along ``axis`` of a value of shape ``shape``."""
    view = [1] * len(shape)
    view[axis] = len(labels)
    return labels.view(view).expand(shape)


def varying_axes(labels: Tensor) -> list[int]:
    """The axes along which labels change: none for no or one channel, one for an ordinary activation."""
    found, (labels,) = [], compact(labels)
    for axis in range(labels.dim()):
        if labels.stride(axis) == 0 or labels.size(axis) <= 1:
            continue
        first = labels.narrow(axis, 0, 1)
        if not torch.equal(labels, first.expand_as(labels)):
            found.append(axis)
    return found


def profile(labels: Tensor) -> tuple[int, Tensor]:
    """Return (channel axis, labels along it); where labels vary along several axes, (-1, all of them)."""
    axes = varying_axes(labels)
    if len(axes) > 1:
        return -1, torch.unique(compact(labels)[0])
    axis = axes[0] if axes else min(1, labels.dim() - 1)
    if labels.dim() == 0:
        return -1, labels.reshape(1)
    index: list[Any] = [0] * labels.dim()
    index[axis] = slice(None)
    if labels.numel() == 0:
        return -1, labels.reshape(-1)
    return axis, labels[tuple(index)].clone(memory_format=torch.contiguous_format)
