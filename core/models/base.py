"""The type of a model factory, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from core.parts import MODELS


class Factory(Protocol):
    """Builds a network for images (N, in_channels, H, W) with outputs (N, num_classes); both have defaults."""

    def __call__(self, num_classes: int = ..., in_channels: int = ...) -> nn.Module:
        """Build the network with random weights."""
        ...


def register(name: str) -> Callable[[Factory], Factory]:
    """File a factory under ``name``; the recipe that trains it, if not the default one, is in `core.recipes`."""
    return MODELS.register(name)
