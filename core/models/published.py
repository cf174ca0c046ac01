"""Networks of others by name: which package builds them, and what it knows of the weights that it publishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from core import snapshots
from core.models import huggingface, timm, vision, zoo
from core.parts import HUGGINGFACE, TIMM, ZOO, is_pretrained


def builder(name: str, num_classes: int, in_channels: int | None, pretrained: bool) -> Callable[[], nn.Module]:
    """Return a function that builds ``torchvision:NAME``, ``timm:NAME``, ``huggingface:PATH`` or ``zoo:NAME``.

    Raises:
        UnknownNameError: the package has no such network, or no such weights.
        UsageError: the package is missing, or the network does not take such images.
        CheckpointError: a folder has no weights that may be read.
    """
    if name.startswith(HUGGINGFACE):
        return huggingface.huggingface_builder(name, in_channels, pretrained)
    if name.startswith(ZOO):
        return zoo.zoo_builder(name, in_channels, pretrained)
    build = timm.timm_builder if name.startswith(TIMM) else vision.torchvision_builder
    return build(name, num_classes, in_channels, pretrained)


def preprocessing_of(name: str) -> dict[str, Any]:
    """How the images were read that the weights of a model were evaluated with.

    Returns:
        size, resize, interpolation, mean, std, as `core.preprocessing` has them.

    Raises:
        UsageError: in a way that is not known here, or its package is missing.
    """
    if name.startswith(HUGGINGFACE):
        return snapshots.preprocessing_of(name)
    if name.startswith(ZOO):
        return dict(zoo.PREPROCESSING)
    return timm.preprocessing_of(name) if name.startswith(TIMM) else vision.preprocessing_of(name)


def licence_of(name: str) -> str:
    """Where the licence of a model's published weights is, or which it is; "" where that is not known."""
    if not is_pretrained(name) or name.startswith(HUGGINGFACE):
        return ""
    if name.startswith(ZOO):
        return zoo.LICENCE
    return timm.licence_of(name) if name.startswith(TIMM) else vision.licence_of(name)
