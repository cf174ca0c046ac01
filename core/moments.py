"""Means and covariances of a stream of samples."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Means and covariances of (x, T) pairs, accumulated over chunks in float64 around the first chunk's means."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: tuple[Tensor, ...] = ()
        self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, t: Tensor) -> None:
        """Add a chunk of rows x (m, in) and t (m, out)."""
        if not self._sums:
            self._x0, self._t0 = x.mean(0), t.mean(0)
        x, t = x - self._x0, t - self._t0
        new = (x.sum(0), t.sum(0), x.T @ x, t.T @ x)
        wide = tuple(part.double() for part in new)
        self._sums = tuple(a + b for a, b in zip(self._sums, wide, strict=True)) if self._sums else wide
        self._squares = self._squares + t.double().square().sum()
        self.count += len(x)

    @property
    def x_mean(self) -> Tensor:
        """Mean of x, (in,)."""
        return self._x0.double() + self._sums[0] / self.count

    @property
    def t_mean(self) -> Tensor:
        """Mean of T, (out,)."""
        return self._t0.double() + self._sums[1] / self.count

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Cov(x) (in, in) and Cov(T, x) (out, in)."""
        sx, st, sxx, stx = self._sums
        n = self.count
        return sxx / n - torch.outer(sx, sx) / n**2, stx / n - torch.outer(st, sx) / n**2

    def lost(self, v: Tensor) -> float:
        """Share of the variance of T that x·vᵀ leaves unexplained, v (out, in): 0 is a perfect reconstruction."""
        cov_x, cov_tx = self.covariances()
        total = self._squares / self.count - (self._sums[1] / self.count).square().sum()
        left = total - 2 * (v * cov_tx).sum() + ((v @ cov_x) * v).sum()
        return float((left / total.clamp_min(1e-300)).clamp_min(0))
