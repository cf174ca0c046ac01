r"""Non-negative least squares for many right-hand sides at once, from inner products: min ‖b_i − z_i·A‖², z_i ≥ 0.

With Q = AAᵀ and C = BAᵀ the solution has z ≥ 0, y = zQ − C ≥ 0 and z∘y = 0, row by row. Where z may be positive is
its passive set F, and z_F = C_F·Q_FF⁻¹. Block principal pivoting (Kim & Park, SIAM J. Sci. Comput. 33(6), 2011) moves
all indices with a wrong sign to the other side, and after three rounds that have not made them fewer only the last
one. It needs the fewer rounds the better F is guessed, so `STEPS` steps of alternating directions (Boyd et al. 2011)
come first: matrix products for all rows together. The result depends on Q and C alone and is exact but for rounding.

Lawson and Hanson's method (SciPy) is asked where Q is singular, so that z need not be unique, and for rows that do not
come to an end.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 30
WEIGHT = 0.3
"""Of the penalty in these steps, as a share of Q's mean diagonal."""
ROUNDS = 50
EXACT = 1e-12
"""A gradient, or a share of a row, that is taken for zero."""
SINGULAR = 1e-12
"""Smallest pivot of a Q that is taken for regular, relative to its largest."""


def nonnegative(q: Tensor, c: Tensor) -> Tensor:
    """Return Z (m, k) ≥ 0 that minimises ‖b_i − z_i·A‖ for every row; all float64.

    Args:
        q: (k, k) inner products of A's rows.
        c: (m, k) inner products of B's rows with A's.
    """
    factor, failed = torch.linalg.cholesky_ex(q)
    pivots = factor.diagonal().square()
    if c.numel() == 0 or int(failed) or float(pivots.min()) <= SINGULAR * float(pivots.max()):
        return by_lawson_hanson(q, c)
    z, solved = by_pivoting(q, c, _guess(q, c))
    if not bool(solved.all()):
        z[~solved] = by_lawson_hanson(q, c[~solved])
    return z


def _guess(q: Tensor, c: Tensor) -> Tensor:
    """Where Z is probably positive, (m, k): min ½zQzᵀ − zCᵀ over z, and z ≥ 0, drawn together."""
    weight = WEIGHT * float(q.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(q + weight * torch.eye(len(q), dtype=q.dtype)))
    start, inverse = c @ inverse, weight * inverse
    z, u = torch.zeros_like(c), torch.zeros_like(c)
    for _ in range(STEPS):
        u += torch.addmm(start, z - u, inverse)
        z = u.clamp_min(0)
        u -= z
    return z > 0


def by_pivoting(q: Tensor, c: Tensor, passive: Tensor) -> tuple[Tensor, Tensor]:
    """Z (m, k) and which of its rows (m,) are solved, from a guess where it is positive, (m, k); Q must be regular."""
    passive, found = passive.clone(), torch.zeros_like(c)
    fewest, patience = torch.full((len(c),), c.shape[1] + 1), torch.full((len(c),), 3)
    slack = EXACT * c.abs().amax(1, keepdim=True)
    rows = torch.arange(len(c))
    for _ in range(ROUNDS):
        own = passive[rows]
        z = _solved(q, c[rows], own)
        y = z @ q - c[rows]
        found[rows] = z
        wrong = (own & ~(z > 0)) | (~own & ~(y >= -slack[rows]))
        count = wrong.sum(1)
        going = count > 0
        if not bool(going.any()):
            rows = rows[going]
            break
        rows, wrong, count = rows[going], wrong[going], count[going]
        fewer = count < fewest[rows]
        fewest[rows] = torch.minimum(count, fewest[rows])
        patience[rows] = torch.where(fewer, 3, patience[rows] - 1)
        last = wrong & (wrong.cumsum(1) == count[:, None])
        passive[rows] ^= torch.where((patience[rows] >= 0)[:, None], wrong, last)
    share = found * q.diagonal().sqrt()
    found[share <= EXACT * share.amax(1, keepdim=True)] = 0
    solved = torch.ones(len(c), dtype=torch.bool)
    solved[rows] = False
    return found, solved


def _solved(q: Tensor, c: Tensor, passive: Tensor) -> Tensor:
    """Z (m, k) with z_F = C_F·Q_FF⁻¹ on each row's set F, zero elsewhere; NaN where that cannot be had."""
    size = passive.sum(1)
    width = max(1, int(size.max()))
    index = passive.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]  # F first, in order
    inside = torch.arange(width) < size[:, None]
    blocks = q.flatten()[index[:, :, None] * len(q) + index[:, None, :]]
    outside = ~inside
    blocks.masked_fill_(outside[:, :, None] | outside[:, None, :], 0).diagonal(dim1=1, dim2=2)[outside] = 1
    factor, failed = torch.linalg.cholesky_ex(blocks)
    values = torch.cholesky_solve(c.gather(1, index).masked_fill_(outside, 0)[:, :, None], factor)[:, :, 0]
    values[failed > 0] = torch.nan
    return torch.zeros_like(c).scatter_(1, index, values)


def by_lawson_hanson(q: Tensor, c: Tensor) -> Tensor:
    """The same row by row with SciPy: with Q = R², R symmetric, ‖b − z·A‖² = ‖Rz − R⁺c‖² + const."""
    from scipy.optimize import nnls

    values, vectors = torch.linalg.eigh(q)
    root = values.clamp_min(0).sqrt()
    inverse = torch.where(root > root.max() * 1e-7, 1 / root.clamp_min(EXACT), 0.0)
    r, targets = (vectors * root) @ vectors.T, c @ ((vectors * inverse) @ vectors.T)
    rows = [torch.from_numpy(nnls(r.numpy(), t.numpy(), maxiter=30 * len(q))[0]) for t in targets]
    return torch.stack(rows) if rows else torch.zeros_like(c)
