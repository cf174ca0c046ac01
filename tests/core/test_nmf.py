"""Semi-NMF: the updates of free rows against their formula, and the rows that come of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.decompositions.base import plain
from core.decompositions.nmf import START, TINY, SemiNMF, free_rows, left_inverse
from core.signature import Signature


def rows(size: int = 12, columns: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, columns, generator=generator, dtype=torch.float64) + 0.3


def ding(w: Tensor, z: Tensor, iterations: int) -> Tensor:
    """Z ← Z ∘ √(((WYᵀ)⁺ + Z(YYᵀ)⁻)/((WYᵀ)⁻ + Z(YYᵀ)⁺)) with Y = Z⁺W, from the rows themselves."""
    z = z + START
    for _ in range(iterations):
        y = torch.linalg.pinv(z) @ w
        a, b = w @ y.T, y @ y.T
        down = ((-a).relu() + z @ b.relu()).clamp_min(TINY)
        z = z * torch.sqrt((a.relu() + z @ (-b).relu()) / down)
    return z


@pytest.mark.parametrize("iterations", [1, 50])
def test_updates_are_those_of_the_paper(iterations: int) -> None:
    w, kept = rows(), torch.tensor([1, 4, 6, 9])
    start = plain(len(w), kept).z
    torch.testing.assert_close(free_rows(w @ w.T, start, iterations), ding(w, start, iterations), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("hard", [False, True])
def test_new_rows_are_the_best_for_their_factors(hard: bool) -> None:
    w, kept = rows(), torch.tensor([1, 4, 6, 9])
    signature = Signature(w @ w.T, torch.zeros(len(w), dtype=torch.float64))
    merge = SemiNMF(rows="free", hard=hard).merge(signature, kept)
    assert merge.rows is not None
    torch.testing.assert_close(merge.rows, torch.linalg.pinv(merge.z), rtol=1e-8, atol=1e-10)


def test_a_left_inverse_of_nearly_dependent_columns_is_the_pseudo_inverse() -> None:
    z = rows(8, 3).abs()
    z[:, 2] = z[:, 1] + 1e-6 * z[:, 0]
    torch.testing.assert_close(left_inverse(z, 1e-8), torch.linalg.pinv(z), rtol=1e-12, atol=1e-9)
    z[:, 2] = 0
    torch.testing.assert_close(left_inverse(z), torch.linalg.pinv(z), rtol=1e-9, atol=1e-12)
