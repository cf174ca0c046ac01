"""Every registered model: its size, its shapes, and that torch.fx can trace it."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from core.models import MODELS, load_model, recipe_for

# name -> (parameters with 3 channels and 10 classes, least side of the image)
TABLE = {
    "lenet-300-100": (3 * 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10, 28),
    "resnet20": (272_474, 1),
    "resnet56": (855_770, 1),
    "vgg-small": (None, 8),
    "vgg16": (14_987_722, 16),
    "wrn-40-4": (8_949_210, 1),
}


def test_the_table_has_every_model() -> None:
    assert sorted(TABLE) == MODELS.names()
    assert len(TABLE) == 6


@pytest.mark.parametrize("name", TABLE)
def test_parameters(name: str) -> None:
    count = sum(p.numel() for p in load_model(name, in_channels=3).parameters())
    expected, _ = TABLE[name]
    assert count == expected if expected is not None else 50_000 < count < 1_000_000


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TABLE)
def test_shapes(name: str, channels: int, classes: int) -> None:
    model = load_model(name, num_classes=classes, in_channels=channels)
    for side in {28} if name.startswith("lenet") else {28, 32, TABLE[name][1]}:
        for batch in (1, 3):
            with torch.inference_mode():
                assert model(torch.zeros(batch, channels, side, side)).shape == (batch, classes)


@pytest.mark.parametrize("name", TABLE)
def test_fx_traces_it_for_any_batch_size(name: str) -> None:
    model = load_model(name, in_channels=1)
    traced = fx.symbolic_trace(model)
    for batch in (1, 2):
        images = torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.equal(traced(images), model(images))


@pytest.mark.parametrize("name", TABLE)
def test_each_activation_is_a_module_of_its_own(name: str) -> None:
    """A module used twice would tie together channels that have nothing to do with each other."""
    calls = [node.target for node in fx.symbolic_trace(load_model(name)).graph.nodes if node.op == "call_module"]
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("name", TABLE)
def test_it_has_a_recipe(name: str) -> None:
    recipe = recipe_for(name, "fashion-mnist")
    assert recipe.epochs >= 1
    assert 0 < recipe.lr < 1
