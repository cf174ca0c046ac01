"""Means and covariances of a stream of samples."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """The same in float32 where their format is a shorter one."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


class Moments:
    """Means and covariances of (x, T) pairs, per group, accumulated over chunks in float64 around the first means.

    Attributes:
        count: samples so far.
        centred: False for a layer without bias: all means are zero and the covariances second moments.
        flat: whether no layer of those that are refitted sees more than one sample per image.
    """

    def __init__(self, *, centred: bool = True, flat: bool = False) -> None:
        self.count, self.centred, self.flat = 0, centred, flat
        self._sums: tuple[Tensor, ...] = ()

    def add(self, x: Tensor, t: Tensor) -> None:
        """Add a chunk of rows x (groups, m, in) and t (groups, m, out)."""
        x, t = precise(x), precise(t)
        if not self._sums:
            self._x0, self._t0 = (part.mean(1, keepdim=True) * self.centred for part in (x, t))
        x, t = x - self._x0, t - self._t0
        new = (x.sum(1), t.sum(1), x.mT @ x, t.mT @ x)
        wide = tuple(part.double() for part in new)
        self._sums = tuple(a + b for a, b in zip(self._sums, wide, strict=True)) if self._sums else wide
        self.count += x.shape[1]

    def without_targets(self) -> Moments:
        """Moments of the same x; `add_targets` counts the T that go with it."""
        found = Moments(centred=self.centred, flat=self.flat)
        found._x0, found._t0, found.count = self._x0, self._t0, self.count
        sx, st, sxx, stx = self._sums
        found._sums = (sx, torch.zeros_like(st), sxx, torch.zeros_like(stx))
        return found

    def add_targets(self, x: Tensor, t: Tensor) -> None:
        """Add a chunk of rows t (groups, m, out) of an x (groups, m, in) that is counted already."""
        sx, st, sxx, stx = self._sums
        x, t = x - self._x0, t - self._t0
        self._sums = (sx, st + t.sum(1).double(), sxx, stx + (t.mT @ x).double())

    @property
    def x_sum(self) -> Tensor:
        """Sum of x, less the first means where these are taken off, (groups, in)."""
        return self._sums[0]

    @property
    def x_mean(self) -> Tensor:
        """Mean of x, (groups, in)."""
        return self.centred * (self._x0[:, 0].double() + self._sums[0] / self.count)

    @property
    def t_mean(self) -> Tensor:
        """Mean of T, (groups, out)."""
        return self.centred * (self._t0[:, 0].double() + self._sums[1] / self.count)

    def through(self, filters: Tensor) -> Moments:
        """The same of (F·x, T), for F (groups, out, in)."""
        found = Moments(centred=self.centred, flat=self.flat)
        f = filters.double()
        sx, st, sxx, stx = self._sums
        found._x0, found._t0 = self._x0.double() @ f.mT, self._t0
        found._sums = ((f @ sx[:, :, None]).squeeze(2), st, f @ sxx @ f.mT, stx @ f.mT)
        found.count = self.count
        return found

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Cov(x) (groups, in, in) and Cov(T, x) (groups, out, in)."""
        sx, st, sxx, stx = (part / self.count for part in self._sums)
        if not self.centred:
            return sxx, stx
        return sxx - sx[:, :, None] * sx[:, None, :], stx - st[:, :, None] * sx[:, None, :]
