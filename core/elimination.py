r"""Backward elimination: in which order the channels of a set are missed least, and what their removal costs.

A consumer gives Wx for the patches x that it reads. Without the channels R, and with its other weights refitted, it
loses tr(W_R [(H⁻¹)_RR]⁻¹ W_Rᵀ), where H is the second moment of x, or its covariance where a bias takes up the mean
(block optimal brain surgeon: Hassibi & Stork, NeurIPS 1992; by channels: OSSCAR, Meng et al. 2024). The cheapest
channel goes first; with P = H⁻¹ and its block j removed,

    W ← W − W_j P_jj⁻¹ P_j,    P ← P − P_j ᵀ P_jj⁻¹ P_j.

Each consumer's cost is divided by the energy of its outputs, and the costs of all that read a set are added up, so 1
is the loss of everything that one consumer gives. H is damped by 1 % of the mean variance of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.criteria.base import Consumer

DAMPING = 1e-2
"""Added to H's diagonal, as a share of its mean."""
PENDING = 256
"""So many columns of P's updates are collected before P is rewritten: one large product instead of many thin ones."""
SPARSE = 0.75
"""P is made smaller when less than this share of its channels is left."""


class Part:
    """One group of a consumer, as far as it reads the set; all float64. Removing channels changes it.

    P is ``_base − _left·_rightᵀ``, of which only the blocks on the diagonal are kept up to date: costs need no more.

    Args:
        channel: (m,) the set's channels that it reads.
        weight: (out, m·p) its columns.
        inverse: P (m·p, m·p).
        scale: 1 / the energy of its outputs, E‖Wx‖²; 0 where there is none.
    """

    def __init__(self, channel: Tensor, weight: Tensor, inverse: Tensor, scale: float) -> None:
        m, p = len(channel), weight.shape[1] // max(1, len(channel))
        self.channel, self._taps, self._scale, self._base = channel, p, scale, inverse
        self._weight = weight.T.clone(memory_format=torch.contiguous_format)  # (m·p, out), which changes
        own = torch.arange(m)
        self._blocks = inverse.view(m, p, m, p)[own, :, own]  # (m, p, p)
        self._alive = torch.ones(m, dtype=torch.bool)
        self._start()

    def _start(self) -> None:
        room = max(self._taps, PENDING // max(1, self._taps) * self._taps)
        self._left, self._right = self._base.new_zeros(2, len(self._base), room)
        self._used = 0

    def costs(self) -> Tensor:
        """What removing each channel alone costs, (m,); those that are gone cost nothing."""
        columns = self._weight.view(len(self.channel), self._taps, self._weight.shape[1])
        squares = columns @ columns.mT
        found = torch.linalg.solve_ex(self._blocks, squares)[0].diagonal(dim1=1, dim2=2).sum(1)
        scaled: Tensor = self._scale * found.nan_to_num(0.0, 0.0, 0.0).clamp_min(0)
        return scaled * self._alive

    def remove(self, channel: int) -> None:
        """Take a channel out, if it is there, and refit the others' columns."""
        (local,) = ((self.channel == channel) & self._alive).nonzero(as_tuple=True)
        if len(local) == 0:
            return
        m, p, at = len(self.channel), self._taps, int(local)
        own, used = slice(at * p, at * p + p), slice(self._used)
        across = self._base[own].addmm(self._left[own, used], self._right[:, used].T, alpha=-1)  # P_j (p, m·p)
        across.view(p, m, p)[:, ~self._alive] = 0.0  # rounding leaves something of those that are gone
        back = torch.linalg.solve_ex(across[:, own], across)[0].nan_to_num(0.0, 0.0, 0.0)
        self._weight.addmm_(back.T, self._weight[own].clone(), alpha=-1)
        self._blocks.baddbmm_(across.view(p, m, p).permute(1, 2, 0), back.view(p, m, p).transpose(0, 1), alpha=-1)
        self._alive[at] = False
        self._weight[own] = 0.0
        self._blocks[at] = torch.eye(p, dtype=self._blocks.dtype)
        self._left[:, self._used : self._used + p], self._right[:, self._used : self._used + p] = across.T, back.T
        self._used += p
        if self._used == self._left.shape[1]:
            self._rewrite()

    def _rewrite(self) -> None:
        if float(self._alive.double().mean()) < SPARSE:
            stays = self._alive.repeat_interleave(self._taps).nonzero().flatten()
            self.channel, self._blocks = self.channel[self._alive], self._blocks[self._alive]
            self._base, self._weight = self._base[stays][:, stays], self._weight[stays]
            self._left, self._right = self._left[stays], self._right[stays]
            self._alive = torch.ones(len(self.channel), dtype=torch.bool)
        self._base = self._base.addmm(self._left, self._right.T, alpha=-1)
        self._start()


def parts_of(consumers: Sequence[Consumer]) -> list[Part]:
    """What the consumers of a set read of it, group by group.

    Raises:
        UsageError: there are no calibration images, or a consumer's input cannot be laid out in rows.
    """
    found = []
    for consumer in consumers:
        moments = consumer.moments
        for group in sorted(set(consumer.group.tolist())):
            mine = consumer.group == group
            columns = consumer.column[mine].flatten()
            h = moments.second[group][columns][:, columns].double()
            if consumer.biased:
                mean = moments.mean[group][columns].double()
                h = h - torch.outer(mean, mean)
            weight = consumer.weight[mine].double().transpose(0, 1).flatten(1)  # (out, m·p)
            found.append(_part(consumer.channel[mine], weight, h))
    return found


def _part(channel: Tensor, weight: Tensor, h: Tensor) -> Part:
    energy = float(((weight @ h) * weight).sum())
    damping = DAMPING * float(h.diagonal().mean())
    if not energy > 0 or not damping > 0:  # it gives nothing that varies: there is nothing to lose
        return Part(channel, weight, torch.eye(len(h), dtype=h.dtype), 0.0)
    return Part(channel, weight, _inverse(h, damping), 1 / energy)


def _inverse(h: Tensor, damping: float) -> Tensor:
    """(H + damping·I)⁻¹; where rounding has made H indefinite, with its negative eigenvalues taken for 0."""
    damped = h.clone()
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not int(failed):
        return torch.cholesky_inverse(factor)
    values, vectors = torch.linalg.eigh(h)
    inverse: Tensor = (vectors / (values.clamp_min(0) + damping)) @ vectors.mT
    return inverse


def eliminate(parts: Sequence[Part], size: int, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Remove all channels of a set one after the other.

    Args:
        parts: what its consumers read of it; nothing is left of them afterwards.
        size: n, its channels.
        order: (n,) in which order; None: the cheapest first, each time (ties: the lower index).

    Returns:
        The order (n,) of removal, and what the set has cost after each of them, (n,), which never falls.
    """
    gone = torch.zeros(size, dtype=torch.float64)
    picks, spent = list[int](), torch.zeros(size, dtype=torch.float64)
    for number in range(size):
        now = torch.zeros(size, dtype=torch.float64)
        for part in parts:
            now.index_add_(0, part.channel, part.costs())
        pick = int((now + gone).argmin()) if order is None else int(order[number])
        picks.append(pick)
        spent[number], gone[pick] = now[pick], torch.inf
        for part in parts:
            part.remove(pick)
    return torch.tensor(picks), spent.cumsum(0)
