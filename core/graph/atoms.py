"""Atoms: one number for every index of every parameter axis that carries channels, and the ties among them.

Row 5 of a convolution, entry 5 of the batch norm behind it and column 5 of the next layer are three atoms of one
channel. Whatever an operation does to channels is written down as a tie ("these two stand or fall together") or a
freeze ("this one cannot be removed, because …"); `Atoms.units` turns the ties into channels at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

NONE = 0
"""The label of an element that belongs to no channel: network inputs, outputs of opaque operations."""


def compact(*labels: Tensor) -> tuple[Tensor, ...]:
    """Label tensors of one shape without the axes along which all of them are expanded: the same combinations."""
    if labels[0].numel():
        for axis, size in enumerate(labels[0].shape):
            if size > 1 and all(one.stride(axis) == 0 for one in labels):
                labels = tuple(one.narrow(axis, 0, 1) for one in labels)
    return labels


@dataclass
class Atoms:
    """Allocates atoms and collects ties and freezes while a graph is walked.

    Attributes:
        axes: (parameter name, axis) -> its atoms, one per index.
        frozen: atom -> why it cannot be removed.
        balanced: (atoms, groups, who): each of the groups, in order, must lose the same number of channels.
    """

    axes: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    balanced: list[tuple[Tensor, int, str]] = field(default_factory=list)
    _ties: list[Tensor] = field(default_factory=list)
    _count: int = 1

    def axis(self, parameter: str, axis: int, size: int) -> Tensor:
        """Return the atoms (size,) of one axis of one parameter, the same ones at every call."""
        key = (parameter, axis)
        if key not in self.axes:
            self.axes[key] = torch.arange(self._count, self._count + size, dtype=torch.int32)
            self._count += size
        return self.axes[key]

    def tie(self, left: Tensor, right: Tensor) -> None:
        """Tie two label tensors of one shape element by element; an element tied to NONE is frozen by the caller."""
        left, right = (labels.flatten() for labels in compact(left, right))
        tied = (left != right) & (left != NONE) & (right != NONE)
        keys = torch.unique((left[tied].long() << 32) | right[tied])  # each pair once, as one number
        if len(keys):
            self._ties.append(torch.stack([keys >> 32, keys & 0xFFFFFFFF]).int())

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Mark every atom in ``labels`` as not removable; the first reason given stays."""
        for atom in torch.unique(compact(labels)[0]).tolist():
            if atom != NONE:
                self.frozen.setdefault(atom, reason)

    def balance(self, labels: Tensor, groups: int, owner: str) -> None:
        """Demand that ``groups`` equal parts of ``labels`` (size,) lose as many channels each, because of ``owner``."""
        self.balanced.append((labels, groups, owner))

    def units(self) -> np.ndarray:
        """Return the unit (channel) number of every atom, as an array indexed by atom."""
        pairs = torch.cat(self._ties, dim=1).numpy() if self._ties else np.zeros((2, 0), dtype=np.int32)
        weights = np.ones(pairs.shape[1], dtype=np.int8)
        ties = coo_array((weights, (pairs[0], pairs[1])), shape=(self._count, self._count))
        numbers: np.ndarray = connected_components(ties, directed=False)[1]
        return numbers
