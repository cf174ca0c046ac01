"""The registries of networks and datasets, here and not in their packages so that a name is known without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.registry import Registry

MODELS: Registry[Callable[..., Any]] = Registry("model", "core.models")
DATASETS: Registry[Callable[..., Any]] = Registry("dataset", "core.datasets")

TORCHVISION = "torchvision:"
"""Begins the name of a network of torchvision."""
IMAGE_FOLDER = "image-folder:"
"""Begins the name of a folder of photographs."""


def is_pretrained(model: str) -> bool:
    """Whether the name of a model asks for published weights: ``torchvision:resnet18@IMAGENET1K_V1``."""
    return model.startswith(TORCHVISION) and "@" in model
