"""A kit that every source of calibration images passes: as many as asked, like the data, and drawn by one generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.calibration import CALIBRATIONS

NAMES = ("noise", "train-subset")
SHAPES = [(1, 28, 28), (3, 8, 8), (3, 5, 9)]


def pool(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(9))


def drawn(name: str, images: Tensor, count: int, seed: int = 0) -> Tensor:
    return CALIBRATIONS.get(name)(images, count, torch.Generator().manual_seed(seed))


def test_the_table_is_complete() -> None:
    assert tuple(CALIBRATIONS.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 7, 32])
def test_so_many_as_asked_in_the_datas_form(name: str, shape: tuple[int, ...], count: int) -> None:
    found = drawn(name, pool(32, shape), count)
    assert found.shape == (count, *shape)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_never_more_than_asked(name: str) -> None:
    assert len(drawn(name, pool(5, (1, 8, 8)), 12)) <= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_images_and_another_one_others(name: str) -> None:
    images = pool(40, (1, 8, 8))
    assert torch.equal(drawn(name, images, 8, seed=3), drawn(name, images, 8, seed=3))
    assert not torch.equal(drawn(name, images, 8, seed=3), drawn(name, images, 8, seed=4))


@pytest.mark.parametrize("name", NAMES)
def test_neither_the_pool_nor_the_global_random_state_changes(name: str) -> None:
    images = pool(20, (1, 8, 8))
    before, state = images.clone(), torch.get_rng_state()
    made = drawn(name, images, 6)
    made.add_(1.0)
    assert torch.equal(images, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_the_spread_is_about_that_of_the_data(name: str) -> None:
    """Normalised images have a variance of about one; a source far from it would tell a network nothing."""
    assert 0.3 < float(drawn(name, pool(200, (3, 16, 16)), 64).std()) < 3


def test_training_images_are_drawn_without_repetition() -> None:
    images = pool(30, (1, 4, 4))
    found = drawn("train-subset", images, 30)
    assert len(torch.unique(found.flatten(1), dim=0)) == 30
