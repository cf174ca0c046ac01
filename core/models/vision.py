"""torchvision's classifiers by name, with random weights or with those that torchvision publishes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.datasets.download import UnavailableError, quietly
from core.errors import CheckpointError, UnknownNameError, UsageError
from core.parts import TORCHVISION

ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
BUILT_FOR_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}
"""What torchvision builds otherwise when it is asked for weights."""


def torchvision_builder(
    name: str, num_classes: int, in_channels: int | None, pretrained: bool
) -> Callable[[], nn.Module]:
    """Return a function that builds ``torchvision:NAME`` or ``torchvision:NAME@WEIGHTS``.

    Raises:
        UnknownNameError: torchvision has no such classifier, or it has no such weights.
        UsageError: ``in_channels`` is not 3, or the weights are no classifier's.
    """
    import torchvision

    kind, _, wanted = name.removeprefix(TORCHVISION).partition("@")
    known = torchvision.models.list_models(torchvision.models)
    if kind not in known:
        raise UnknownNameError("torchvision model", kind, known)
    if in_channels not in (None, 3):
        raise UsageError(
            f"model {name!r} takes images of 3 channels, not {in_channels}: use a dataset of colour images"
        )
    if "@" not in name:
        return lambda: _build(kind, num_classes=num_classes)
    weights = _weights(kind, wanted)
    if pretrained:
        return lambda: _download(kind, weights)
    return lambda: _build(kind, num_classes=len(weights.meta["categories"]), **_structure(kind, weights))


def _weights(kind: str, wanted: str) -> Any:
    import torchvision

    found = torchvision.models.get_model_weights(kind)
    names = [*found.__members__]
    if wanted not in names:
        raise UnknownNameError(f"weights of torchvision's {kind}", wanted, names)
    if not found[wanted].meta.get("categories"):
        raise UsageError(f"weights {wanted} of torchvision's {kind} are of its features alone: choose others")
    return found[wanted]


def preprocessing_of(name: str) -> dict[str, Any]:
    """How the images were read that published weights were evaluated with: size, resize, interpolation, mean, std."""
    kind, _, wanted = name.removeprefix(TORCHVISION).partition("@")
    way = _weights(kind, wanted).transforms()
    return {
        "size": way.crop_size[0],
        "resize": way.resize_size[0],
        "interpolation": way.interpolation.value,
        "mean": tuple(way.mean),
        "std": tuple(way.std),
    }


def licence_of(name: str) -> str:
    """Where the licence of published weights is, or which it is; "" where that is not known."""
    kind, _, wanted = name.removeprefix(TORCHVISION).partition("@")
    return str(_weights(kind, wanted).meta.get("license", ""))


def _structure(kind: str, weights: Any) -> dict[str, Any]:
    if kind.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return BUILT_FOR_WEIGHTS.get(kind, {})


def _build(kind: str, **arguments: Any) -> nn.Module:
    import torchvision

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # googlenet and inception announce a future default of their initialisation
        model: nn.Module = torchvision.models.get_model(kind, **arguments)
    return model


def _download(kind: str, weights: Any) -> nn.Module:
    """Let torchvision fetch the weights, or take them from where it keeps them, and fill the network.

    Raises:
        CheckpointError: they are neither on this machine nor can they be downloaded.
    """
    built: list[nn.Module] = []
    try:
        with plain_weights_only():
            quietly(lambda: built.append(_build(kind, weights=weights, progress=False)))
    except UnavailableError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise CheckpointError(
            f"weights {weights.name} of torchvision's {kind} cannot be loaded ({error}): put the file {weights.url} "
            f"into {folder}, or name one that you have with checkpoint"
        ) from None
    return built[0]


@contextmanager
def plain_weights_only() -> Iterator[None]:
    """Let torch refuse files that are more than tensors, which torchvision leaves open."""
    before = os.environ.get(ONLY_WEIGHTS)
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONLY_WEIGHTS]
        else:
            os.environ[ONLY_WEIGHTS] = before
