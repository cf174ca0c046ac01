"""timm's classifiers by name, with random weights or with those that timm publishes (``timm:resnet50@a1_in1k``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.datasets.download import UnavailableError, quietly
from core.errors import CheckpointError, ModelError, UnknownNameError, UsageError, first_line
from core.models.optional import optional_package
from core.models.vision import plain_weights_only
from core.parts import TIMM

ANY = "DEFAULT"
"""The tag of the weights that timm itself takes where none is named."""


def timm_builder(name: str, num_classes: int, in_channels: int | None, pretrained: bool) -> Callable[[], nn.Module]:
    """Return a function that builds ``timm:NAME`` or ``timm:NAME@TAG``.

    Raises:
        UnknownNameError: timm has no such network, or it has no such weights.
        UsageError: timm is missing, the weights are no classifier's, or were trained on images of other channels.
    """
    timm, kind, weights = _look_up(name)
    if weights is None:
        return lambda: _build(timm, name, kind, num_classes=num_classes, in_chans=in_channels or 3)
    taken = weights.input_size[0]
    if in_channels not in (None, taken):
        raise UsageError(f"model {name!r} takes images of {taken} channels, not {in_channels}: use another dataset")
    if not weights.num_classes:
        raise UsageError(f"weights {weights.tag} of timm's {kind} are of its features alone: choose others")
    tagged = f"{kind}.{weights.tag}" if weights.tag else kind
    if not pretrained:
        return lambda: _build(timm, name, tagged)
    return lambda: _download(timm, name, tagged, weights)


def preprocessing_of(name: str) -> dict[str, Any]:
    """How the images were read that published weights were evaluated with: size, resize, interpolation, mean, std.

    Raises:
        UsageError: in a way that is not known here.
    """
    _, kind, weights = _look_up(name)
    assert weights is not None, name
    size = weights.input_size[-1]
    whole = weights.crop_pct == 1 and weights.crop_mode == "squash"  # the same for square images, and no other way
    if (weights.crop_mode != "center" and not whole) or weights.interpolation not in ("bilinear", "bicubic", "nearest"):
        raise UsageError(
            f"weights {weights.tag} of timm's {kind} read images in a way that is not known here (crop_mode"
            f" {weights.crop_mode!r}, interpolation {weights.interpolation!r}): set"
            ' baseline.preprocessing = "dataset", and size, mean and std'
        )
    return {
        "size": size,
        "resize": int(size / weights.crop_pct),
        "interpolation": weights.interpolation,
        "mean": tuple(weights.mean),
        "std": tuple(weights.std),
    }


def licence_of(name: str) -> str:
    """The licence of published weights; "" where it is not known."""
    return str(_look_up(name)[2].license or "")


def _look_up(name: str) -> tuple[Any, str, Any]:
    """The package, the network's name, and what is known of the weights, if they are asked for.

    Raises:
        UnknownNameError: timm has no such network, or it has no such weights.
        UsageError: timm is missing, or the weights are named in another way.
    """
    timm = optional_package("timm", "timm", name)
    kind, _, wanted = name.removeprefix(TIMM).partition("@")
    known = timm.list_models()
    if kind not in known:
        plain, _, tag = kind.partition(".")
        if tag and plain in known:
            raise UsageError(f"model {name!r}: write {TIMM}{plain}@{tag} for the weights {tag}")
        raise UnknownNameError("timm model", kind, known)
    if "@" not in name:
        return timm, kind, None
    found = {c.tag or ANY: c for c in timm.models.get_arch_pretrained_cfgs(kind).values() if c.has_weights}
    if wanted == ANY and found:
        default = timm.get_pretrained_cfg(kind)
        return timm, kind, default if default.has_weights else next(iter(found.values()))
    if wanted not in found:
        raise UnknownNameError(f"weights of timm's {kind}", wanted, found)
    return timm, kind, found[wanted]


def _build(timm: Any, name: str, kind: str, **arguments: Any) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(kind, **arguments)
    except Exception as error:
        raise ModelError(f"model {name!r} cannot be built: {first_line(error)}") from error
    return model


def _download(timm: Any, name: str, tagged: str, weights: Any) -> nn.Module:
    """Let timm fetch the weights, or take them from where it keeps them.

    Raises:
        CheckpointError: they are neither on this machine nor can they be downloaded.
    """
    built: list[nn.Module] = []
    try:
        with plain_weights_only():
            quietly(lambda: built.append(timm.create_model(tagged, pretrained=True)))
    except UnavailableError as error:
        where = f"the cache of Hugging Face ({weights.hf_hub_id})" if weights.hf_hub_id else torch.hub.get_dir()
        raise CheckpointError(
            f"the weights of {name!r} cannot be loaded ({error}): bring them into {where}, or name a file that you have"
            f" with checkpoint and the model as {name.partition('@')[0]!r}"
        ) from None
    return built[0]
