"""The type of a model factory, the registry of them, and the training recipe that each one brings along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from core.registry import Registry


class Factory(Protocol):
    """Builds a network for images (N, in_channels, H, W) with outputs (N, num_classes); both have defaults."""

    def __call__(self, num_classes: int = ..., in_channels: int = ...) -> nn.Module:
        """Build the network with random weights."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How a baseline of this network is trained from scratch: SGD with Nesterov momentum, one-cycle rate.

    Args:
        epochs: passes over the training split.
        batch_size: images per step.
        lr: the peak learning rate.
        weight_decay: L2 penalty on weights of two or more dimensions (not on biases and batch norms).
        momentum: of SGD.
        augment: random shifts (2 pixels per 28), and mirror images where the dataset allows them.
    """

    epochs: int = 15
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    augment: bool = True


MODELS: Registry[Factory] = Registry("model", "core.models")
_RECIPES: dict[str, dict[str, Recipe]] = {}


def register(name: str, recipe: Recipe | None = None, **by_dataset: Recipe) -> Callable[[Factory], Factory]:
    """File a factory under ``name``, with its recipe and other recipes for single datasets (``digits=…``)."""
    _RECIPES[name] = {"": recipe or Recipe(), **by_dataset}
    return MODELS.register(name)


def recipe_for(model: str, dataset: str) -> Recipe:
    """Return the recipe of a registered model on a dataset; any other model gets the default one."""
    if model not in MODELS:  # scans the package, so that every recipe is filed
        return Recipe()
    recipes = _RECIPES[model]
    return recipes.get(dataset, recipes[""])
