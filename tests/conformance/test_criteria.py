"""Every criterion: compared with a slow loop in float64, and its invariants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from core.criteria import CRITERIA
from tests import oracle

NAMES = ("geometric-median", "l1", "l2")


def rows(n: int = 12, fan_in: int = 27, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, fan_in, generator=torch.Generator().manual_seed(seed))


def row_score(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    score = CRITERIA.get(name).rows
    assert score is not None
    return score


def test_the_table_is_complete() -> None:
    assert tuple(CRITERIA.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_slow_loop(name: str, seed: int) -> None:
    w = rows(seed=seed)
    expected = oracle.scores(name, w.double().numpy())
    np.testing.assert_allclose(row_score(name)(w.double()).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(row_score(name)(w).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_channels_and_sign_do_not_matter(name: str) -> None:
    w, score = rows(), row_score(name)
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(score(w[order]), score(w)[order])
    torch.testing.assert_close(score(-w), score(w))


@pytest.mark.parametrize("name", NAMES)
def test_scores_scale_with_the_weights(name: str) -> None:
    w, score = rows(), row_score(name)
    torch.testing.assert_close(score(3 * w), 3 * score(w))


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_larger_channel_scores_higher(name: str) -> None:
    w = rows(1).repeat(3, 1) * torch.tensor([[1.0], [3.0], [2.0]])
    assert row_score(name)(w).argsort(descending=True).tolist() == [1, 2, 0]


def test_geometric_median_finds_the_channel_in_the_middle_and_no_distance_to_itself() -> None:
    w = torch.tensor([[0.0], [1.0], [10.0]])
    assert row_score("geometric-median")(w).tolist() == [11.0, 10.0, 19.0]
    assert row_score("geometric-median")(torch.ones(4, 3)).tolist() == [0.0] * 4
