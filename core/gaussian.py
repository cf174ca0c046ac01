r"""Covariances of Gaussian channels behind an activation, in closed form but for one integral per channel.

For y_i, y_j jointly normal with means m, standard deviations s and correlation ρ, Mehler's formula gives

    Cov(φ(y_i), φ(y_j)) = Σ_{d ≥ 1} c_id·c_jd·ρ_ij^d,    c_id = E[φ(m_i + s_i·z)·He_d(z)]/√d!,  z ~ N(0, 1).

The coefficients c are one matrix product for all channels, and what is left is a polynomial in ρ, element by element
(Daniely, Frostig, Singer, 2016, call it the dual activation). The terms past `DEGREE` are taken together: their sum on
the diagonal is known, Var φ(y_i) − Σ c_id², and is spread as √(rest_i·rest_j)·ρ^{DEGREE+1}. So the diagonal is exact,
twins stay twins, and the matrix stays positive semidefinite: every term is a product of such matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DEGREE = 29
"""Of the polynomial; odd, so that the terms taken together have an even power, as all late terms of a ReLU at 0 do."""
POINTS = 1601
"""Of the integrals, on ±8 standard deviations: evenly spaced, since kinks rule out Gauss-Hermite."""


def covariance_of(phi: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor) -> Tensor:
    """Cov(φ(y)) (n, n) of y ~ N(``mean`` (n,), ``covariance`` (n, n)), for φ applied to each element."""
    std = covariance.diagonal().clamp_min(0).sqrt()
    z = torch.linspace(-8, 8, POINTS, dtype=mean.dtype)
    weight = torch.softmax(-0.5 * z**2, dim=0)
    values = phi(mean[:, None] + std[:, None] * z).to(mean.dtype)
    values = values - (values @ weight)[:, None]
    c = (values * weight) @ hermite(z).T  # (n, 1 + DEGREE)
    c[:, 0] = 0
    rest = (values.square() @ weight - c.square().sum(1)).clamp_min(0).sqrt()
    rho = correlation(covariance)
    total = torch.outer(rest, rest)
    for d in range(DEGREE, -1, -1):
        total = total * rho + torch.outer(c[:, d], c[:, d])
    return total


def hermite(z: Tensor) -> Tensor:
    """He_d(z)/√d! for d = 0 … DEGREE, (1 + DEGREE, len(z)): orthonormal under N(0, 1)."""
    h = [torch.ones_like(z), z]
    for d in range(1, DEGREE):
        h.append((z * h[d] - d**0.5 * h[d - 1]) / (d + 1) ** 0.5)
    return torch.stack(h)


def correlation(covariance: Tensor) -> Tensor:
    """Correlations (n, n), at most 1 in size; those of a channel that does not vary are 0."""
    length = covariance.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(length > 0, 1 / length.clamp_min(torch.finfo(length.dtype).tiny), 0.0)
    return (covariance * torch.outer(inverse, inverse)).clamp(-1, 1)
