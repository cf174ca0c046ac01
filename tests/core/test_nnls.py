"""Non-negative least squares for many rows at once, against SciPy's, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from core import nnls as subject
from core.nnls import by_pivoting, nonnegative

# name: rows to combine, columns, rows to approximate, what is added to all numbers (rows alike, as trained ones are)
SHAPES = {
    "few-of-many": (40, 60, 15, 0.0),
    "many-of-few": (5, 60, 40, 0.0),
    "one": (1, 9, 7, 0.0),
    "all-alike": (30, 50, 25, 1.0),
    "all-against": (20, 50, 25, -0.4),
}


def rows(name: str) -> tuple[Tensor, Tensor]:
    k, columns, m, shift = SHAPES[name]
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, columns, generator=draw, dtype=torch.float64) for n in (k, m))
    return a + abs(shift), b + shift


def oracle(a: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([nnls(a.T.numpy(), row.numpy())[0] for row in b]))


@pytest.mark.parametrize("name", SHAPES)
def test_as_scipy_row_by_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rows(name)
    monkeypatch.setattr(subject, "by_lawson_hanson", lambda q, c: pytest.fail("none of these needs SciPy"))
    found = nonnegative(a @ a.T, b @ a.T)
    torch.testing.assert_close(found, oracle(a, b), rtol=1e-8, atol=1e-10)
    assert bool((found >= 0).all())
    assert len(SHAPES) == 5


@pytest.mark.parametrize("guess", [False, True], ids=["none-positive", "all-positive"])
def test_a_bad_guess_costs_rounds_and_changes_nothing(guess: bool) -> None:
    a, b = rows("few-of-many")
    found, solved = by_pivoting(a @ a.T, b @ a.T, torch.full((len(b), len(a)), guess))
    assert bool(solved.all())
    torch.testing.assert_close(found, oracle(a, b), rtol=1e-8, atol=1e-10)


def test_a_proportional_row_has_one_entry() -> None:
    a, _ = rows("few-of-many")
    found = nonnegative(a @ a.T, 3 * a[[4, 7]] @ a.T)
    assert found.nonzero().tolist() == [[0, 4], [1, 7]]
    torch.testing.assert_close(found[[0, 1], [4, 7]], torch.full((2,), 3.0, dtype=torch.float64))


def test_rows_that_come_to_no_end_are_left_to_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rows("few-of-many")
    monkeypatch.setattr(subject, "ROUNDS", 1)
    _, solved = by_pivoting(a @ a.T, b @ a.T, torch.ones(len(b), len(a), dtype=torch.bool))
    assert not bool(solved.any())
    monkeypatch.setattr(subject, "STEPS", 0)
    torch.testing.assert_close(nonnegative(a @ a.T, b @ a.T), oracle(a, b), rtol=1e-8, atol=1e-10)


def test_singular_inner_products_still_give_the_best_approximation() -> None:
    a, b = rows("few-of-many")
    twice = torch.cat([a, a[:3]])  # twins: z is not unique, z·A is
    found = nonnegative(twice @ twice.T, b @ twice.T)
    torch.testing.assert_close(found @ twice, oracle(a, b) @ a, rtol=1e-6, atol=1e-8)


def test_nothing_to_approximate() -> None:
    a, b = rows("one")
    assert nonnegative(a @ a.T, b[:0] @ a.T).shape == (0, 1)
