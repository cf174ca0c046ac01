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
from dataclasses import dataclass

import torch
from torch import Tensor

from core.criteria.base import Consumer

DAMPING = 1e-2
"""Added to H's diagonal, as a share of its mean."""
TRAFFIC = 2_000_000_000
"""So many numbers of P are rewritten at most; larger ones lose several channels at a time."""


@dataclass
class Part:
    """One group of a consumer, as far as it reads the set; all float64.

    Attributes:
        channel: (m,) the set's channels that it reads and that are still there.
        weight: (out, m·p) its columns, refitted to what is still there.
        inverse: P (m·p, m·p).
        scale: 1 / the energy of its outputs, E‖Wx‖²; 0 where there is none.
    """

    channel: Tensor
    weight: Tensor
    inverse: Tensor
    scale: float

    @property
    def _taps(self) -> int:
        return self.weight.shape[1] // max(1, len(self.channel))

    def costs(self) -> Tensor:
        """What removing each channel alone costs, (m,)."""
        m, p = len(self.channel), self._taps
        own = torch.arange(m)
        blocks = self.inverse.view(m, p, m, p)[own, :, own]  # (m, p, p)
        columns = self.weight.view(len(self.weight), m, p).permute(1, 2, 0)  # (m, p, out)
        squares = columns @ columns.mT
        found = torch.linalg.solve_ex(blocks, squares)[0].diagonal(dim1=1, dim2=2).sum(1)
        scaled: Tensor = self.scale * found.nan_to_num(0.0, 0.0, 0.0).clamp_min(0)
        return scaled

    def places(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Where ``channels`` are among the part's (those that it reads), and among its columns."""
        local = torch.isin(self.channel, channels).nonzero().flatten()
        return local, (local[:, None] * self._taps + torch.arange(self._taps)).flatten()

    def take(self, channels: Tensor) -> Part:
        """What concerns some of the channels only: enough to remove several of them one after the other."""
        local, columns = self.places(channels)
        return Part(
            self.channel[local], self.weight[:, columns], self.inverse[columns][:, columns].contiguous(), self.scale
        )

    def remove(self, channels: Tensor) -> Part:
        """The part without ``channels``, refitted."""
        local, columns = self.places(channels)
        if len(local) == 0:
            return self
        stays = torch.ones(len(self.inverse), dtype=torch.bool)
        stays[columns] = False
        rest, left = stays.nonzero().flatten(), torch.ones(len(self.channel), dtype=torch.bool)
        left[local] = False
        own, kept = self.inverse.index_select(0, columns), self.inverse.index_select(0, rest)
        across = own.index_select(1, rest)
        back = torch.linalg.solve_ex(own.index_select(1, columns), across)[0].nan_to_num(0.0, 0.0, 0.0)
        inverse = kept.index_select(1, rest).addmm_(across.mT, back, alpha=-1)
        weight = self.weight.index_select(1, rest).addmm_(self.weight.index_select(1, columns), back, alpha=-1)
        return Part(self.channel[left], weight, inverse, self.scale)


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
            h = moments.second[group][columns][:, columns].double().cpu()
            if consumer.biased:
                mean = moments.mean[group][columns].double().cpu()
                h = h - torch.outer(mean, mean)
            weight = consumer.weight[mine].double().cpu().transpose(0, 1).flatten(1)  # (out, m·p)
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


def costs(parts: Sequence[Part], size: int) -> Tensor:
    """What removing each of a set's ``size`` channels alone costs, (size,)."""
    total = torch.zeros(size, dtype=torch.float64)
    for part in parts:
        total.index_add_(0, part.channel, part.costs())
    return total


def eliminate(parts: Sequence[Part], size: int, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Remove all channels of a set one after the other.

    Args:
        parts: what its consumers read of it.
        size: n, its channels.
        order: (n,) in which order; None: the cheapest first, each time (ties: the lower index).

    Returns:
        The order (n,) of removal, and what the set has cost after each of them, (n,), which never falls.
    """
    numbers = sum(len(part.inverse) ** 2 for part in parts)
    at_a_time = max(1, -(-numbers * size // (3 * TRAFFIC)))
    left, taken = torch.arange(size), list[tuple[int, float]]()
    while len(left):
        count = min(at_a_time, len(left))
        if order is not None:
            few = order[len(taken) : len(taken) + count]
        elif count == 1:
            few = left
        else:
            few = left[costs(parts, size)[left].argsort(stable=True)[: 2 * count]].sort().values
        near = parts if count == 1 else [part.take(few) for part in parts]
        new = _one_by_one(near, few, size, count, in_order=order is not None)
        gone = torch.tensor([channel for channel, _ in new])
        parts, left, taken = [part.remove(gone) for part in parts], left[~torch.isin(left, gone)], taken + new
    channels, spent = zip(*taken, strict=True)
    return torch.tensor(channels), torch.tensor(spent, dtype=torch.float64).cumsum(0)


def _one_by_one(
    parts: Sequence[Part], few: Tensor, size: int, count: int, *, in_order: bool
) -> list[tuple[int, float]]:
    """The first ``count`` of ``few`` to go, and what each costs."""
    taken: list[tuple[int, float]] = []
    while len(taken) < count:
        now = costs(parts, size)
        pick = int(few[0] if in_order else few[now[few].argsort(stable=True)[0]])
        taken.append((pick, float(now[pick])))
        few = few[few != pick]
        if len(taken) < count:
            parts = [part.remove(torch.tensor([pick])) for part in parts]
    return taken
