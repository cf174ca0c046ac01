"""How the original networks are trained where there is no checkpoint: a recipe for each model, or model and dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and a one-cycle learning rate, from random weights.

    Attributes:
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


_RESNET = {
    "": Recipe(epochs=60, batch_size=128, lr=0.2, weight_decay=5e-4),
    "digits": Recipe(epochs=8, batch_size=64, lr=0.1, weight_decay=5e-4),
}
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "lenet-300-100": {
        "": Recipe(epochs=20, batch_size=128, lr=0.1, weight_decay=5e-4, augment=False),
        "digits": Recipe(epochs=40, batch_size=64, lr=0.1, weight_decay=1e-4),
    },
    "resnet20": _RESNET,
    "resnet56": _RESNET,
    "vgg16": {"": Recipe(epochs=60, batch_size=128, lr=0.1, weight_decay=5e-4)},
    "vgg-small": {"": Recipe(epochs=8, batch_size=128, lr=0.1, weight_decay=5e-4)},
    "wrn-40-4": {"": Recipe(epochs=60, batch_size=128, lr=0.2, weight_decay=5e-4)},
}
"""Model -> dataset ("": any other) -> recipe."""


def recipe_for(model: str, dataset: str) -> Recipe:
    """Return the recipe of a model on a dataset; a model that is not in `RECIPES` gets the default one."""
    recipes = RECIPES.get(model, {})
    return recipes.get(dataset) or recipes.get("", Recipe())
