"""`load_model`: a registered name, a torchvision name (with weights) or the user's own factory, plus a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.checkpoint import load_checkpoint
from core.errors import ModelError, UsageError
from core.models import published
from core.parts import MODELS, OPTIONAL, PUBLISHERS, is_own_code, is_pretrained
from core.plugins import import_callable

IMAGENET = 1000
"""Outputs of published networks where nobody asks for another number."""
ORIGIN = "_load_model_arguments"


def load_model(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    num_classes: int | None = 10,
    in_channels: int | None = None,
    seed: int = 0,
    pretrained: bool = True,
) -> nn.Module:
    """Build a network in eval mode.

    Args:
        name: a registered model (``vgg16``); ``torchvision:NAME`` (``torchvision:resnet18``) or ``timm:NAME``, or with
            weights by the publisher's name, which it downloads and keeps, ``torchvision:resnet18@IMAGENET1K_V1``,
            ``timm:resnet50@a1_in1k``; ``huggingface:PATH``, a folder that transformers' ``save_pretrained`` wrote or a
            model in its cache, with its weights, as float32; or ``package.module:factory``, a function of the user that
            returns an `nn.Module`: its module is imported and run, from the current directory too. It is given
            ``num_classes`` and ``in_channels`` if it names such parameters.
        checkpoint: weights, see `load_checkpoint`; without one they are random or published ones.
        num_classes: number of outputs; None: what the factory makes by itself; published weights have their own.
        in_channels: channels of the input images; None takes the factory's own default.
        seed: of the random weights; the global random state is left alone.
        pretrained: False builds the network that ``@WEIGHTS`` belong to with random ones; nothing is downloaded.

    Raises:
        UnknownNameError: no such model or weights; the nearest names are given.
        UsageError: the request cannot be met: one input channel for a torchvision model, a package that is not there.
        ModelError: the user's factory failed or returned something else.
        CheckpointError: the weights cannot be downloaded, cannot be read or do not fit.
    """
    if checkpoint is not None and is_pretrained(name):
        raise UsageError(f"model {name!r} comes with weights of its own: leave out either them or the checkpoint")
    build = _builder(name, num_classes, in_channels, pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    remember_origin(model, {"name": name, "num_classes": num_classes, "in_channels": in_channels})
    return model.eval()


def require_code(name: str) -> None:
    """Find the code behind the name of a model, before anything is spent on what it will be given.

    That is the user's own, or a package that is not always there, with the network and the weights that are named.

    Raises:
        UsageError, UnknownNameError, ModelError, CheckpointError: it cannot be had.
    """
    if is_own_code(name):
        import_callable(name, "model")
    elif name.startswith(tuple(OPTIONAL)):
        published.builder(name, 1, None, pretrained=True)


def remember_origin(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Note on the module how it was built, so that `core.export` can rebuild it; copies keep the note."""
    model.__dict__[ORIGIN] = dict(arguments)


def origin(model: nn.Module) -> dict[str, Any] | None:
    """How `load_model` built this module (or the one it is a copy of); None for any other module."""
    found: dict[str, Any] | None = model.__dict__.get(ORIGIN)
    return found


def _builder(name: str, num_classes: int | None, in_channels: int | None, pretrained: bool) -> Callable[[], nn.Module]:
    if name.startswith(PUBLISHERS):
        return published.builder(name, num_classes or IMAGENET, in_channels, pretrained)
    wanted = {"num_classes": num_classes, "in_channels": in_channels}
    given = {key: value for key, value in wanted.items() if value is not None}
    if ":" in name:
        factory = import_callable(name, "model")
        return lambda: _call_user_factory(name, factory, given)
    registered = MODELS.get(name)
    return lambda: registered(**given)


def _call_user_factory(name: str, factory: Callable[..., Any], given: dict[str, int]) -> nn.Module:
    try:
        accepted = inspect.signature(factory).parameters
        model = factory(**{key: value for key, value in given.items() if key in accepted})
    except Exception as error:
        raise ModelError(f"model {name!r}: the factory failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name!r}: the factory returned a {type(model).__name__}, not a torch.nn.Module")
    return model
