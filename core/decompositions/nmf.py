r"""``nmf``: semi-NMF of the rows, W ≈ Z·Y with Z ≥ 0 (Ding, Li, Jordan, PAMI 2010; asked for by the paper's reviewers).

``rows="fixed"``: Y = W_K stays and Z's removed rows solve min ‖W_i − z·W_K‖, z ≥ 0 (non-negative least squares).
``rows="free"``: Y replaces the kept rows. From Z, Y = (ZᵀZ)⁻¹ZᵀW; then
Z ← Z ∘ √(((WYᵀ)⁺ + Z(YYᵀ)⁻)/((WYᵀ)⁻ + Z(YYᵀ)⁺)), where M± are the positive and negative parts.

Everything is computed from the inner products G = WWᵀ: with Y = P·W, WYᵀ = GPᵀ and YYᵀ = PGPᵀ.

``hard=True`` keeps each row's largest entry, rescaled to the least-squares optimum, which restores the one-entry
condition of neuron merging. A dense Z does not commute with ReLU, so the better approximation of the weights is the
worse network. LeNet-300-100 on FashionMNIST at ratio 0.8, l1: most-similar 80.02 %; fixed 72.28 %; free 25.0 % after 50
updates and 7.7 % after 500, which is nearer to W. With ``hard`` free rows give 85.4 %. Use it with ``hard``, if at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, carried_exactly, plain, register, removed
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import Signature

TINY = 1e-12
REGULAR = 1e-8
"""Smallest pivot of a ZᵀZ that may be inverted as it is, relative to its largest: 8 digits are left."""
START = 2e-3
"""Added to the first Z, so that no entry is stuck at zero. Ding's 0.2 starts dense, and stays so: 79.2 % for 85.4 %."""


@register("nmf")
class SemiNMF(Decomposition):
    """Non-negative combinations of kept (or free) rows."""

    rows: Literal["fixed", "free"] = Field("fixed", description="keep the kept rows, or replace them")
    hard: bool = Field(False, description="one entry per row, as the merging theorem wants")
    iterations: int = Field(50, ge=1, le=10000, description="multiplicative updates, for free rows")

    def for_set(self, *, single: bool) -> tuple[Decomposition, str]:
        """Free rows need one producer read as it is; elsewhere the kept rows stay."""
        if self.rows == "fixed" or single:
            return self, ""
        return self.model_copy(update={"rows": "fixed"}), "free rows need a single producer: the kept rows stayed"

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return Z (n, k), the offset (n,), and for free rows P (k, n) with Y = P·W."""
        gram = signature.folded().gram
        z = signature.remember(("nmf-fixed", *kept.tolist()), lambda: fixed_rows(gram, kept))
        p = None
        if self.rows == "free":
            start, known = z, ("nmf-free", self.iterations, *kept.tolist())
            z = signature.remember(known, lambda: free_rows(gram, start, self.iterations))
        if self.hard:
            z = one_entry(z, gram, kept if self.rows == "fixed" else None)
        if self.rows == "free":
            p = z.T / z.square().sum(0).clamp_min(TINY)[:, None] if self.hard else left_inverse(z, REGULAR)
        offset = torch.zeros(len(gram), dtype=gram.dtype)
        if signature.mean is not None and p is None:
            rest = signature.mean - z @ signature.mean[kept]
            offset = torch.where(carried_exactly(signature, z, kept), 0.0, rest)
        return Merge(z, offset, p)


def fixed_rows(gram: Tensor, kept: Tensor) -> Tensor:
    """Z (n, k): identity on the kept rows, non-negative least squares on the others."""
    from core.nnls import nonnegative

    z = plain(len(gram), kept).z
    gone = removed(len(gram), kept)
    z[gone] = nonnegative(gram[kept][:, kept], gram[gone][:, kept])
    return z


def free_rows(gram: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Z (n, k) after ``iterations`` of Ding's updates from ``start``."""
    z = start + START
    for _ in range(iterations):
        p = left_inverse(z)
        wy = gram @ p.T
        yy = p @ wy
        up = torch.addmm(wy.clamp_min(0), z, yy.clamp_max(0), alpha=-1)
        down = torch.addmm(wy.clamp_max(0), z, yy.clamp_min(0), beta=-1)
        z = up.div_(down.clamp_min_(TINY)).sqrt_().mul_(z)
    return z


def left_inverse(z: Tensor, least: float = 0.0) -> Tensor:
    """(ZᵀZ)⁻¹Zᵀ (k, n) by Cholesky, many times as fast as the pseudo-inverse.

    That it is where ZᵀZ is singular, or has a pivot below ``least`` of its largest.
    """
    factor, failed = torch.linalg.cholesky_ex(z.T @ z)
    pivots = factor.diagonal().square()
    if int(failed) or float(pivots.min()) < least * float(pivots.max()):
        inverse: Tensor = torch.linalg.pinv(z)
        return inverse
    return torch.cholesky_inverse(factor) @ z.T


def one_entry(z: Tensor, gram: Tensor, kept: Tensor | None) -> Tensor:
    """Keep each row's largest entry; for fixed rows rescaled to the best single coefficient, ⟨W_i, W_j⟩/‖W_j‖²."""
    value, best = z.max(dim=1, keepdim=True)
    if kept is not None:
        j = kept[best.flatten()]
        own = torch.arange(len(gram))
        value = (gram[own, j] / gram[j, j].clamp_min(TINY)).clamp_min(0)[:, None]
        value[kept] = 1.0
    return torch.zeros_like(z).scatter(1, best, value)
