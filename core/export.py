"""Keep a compressed network in one safetensors file: how to build the original, and the smaller weights.

The file names a factory, never code. Reading one builds the original network and then gives every parameter the
shape found in the file. A factory that would import a module of the user's (``package.module:factory``) is never run
because a file says so: hand it to `load` yourself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.errors import CheckpointError, UsageError
from core.files import writing
from core.models import TORCHVISION, load_model, origin, remember_origin
from core.surgery import assign, parameter, refresh

FORMAT = "neuron-merging-sweep/1"


def save(model: nn.Module, path: str | Path, metadata: dict[str, Any] | None = None) -> Path:
    """Write ``model`` to ``path`` as safetensors, all or nothing, and return the path.

    Args:
        model: a compressed network (``result.model``) or any other.
        path: the file to write; its folder is made.
        metadata: anything JSON that should travel along, for example the configuration and its accuracy.

    Raises:
        UsageError: the file cannot be written.
    """
    tensors, shared = _tensors(model)
    header = {
        "format": FORMAT,
        "origin": json.dumps(origin(model)),
        "shared": json.dumps(shared),
        "metadata": json.dumps(metadata or {}),
    }
    with writing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=header)
    return Path(path)


def load(path: str | Path, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Read a network that `save` wrote, in eval mode.

    Args:
        path: the file.
        factory: builds the original, uncompressed network; needed for networks that `load_model` did not build from
            a registered or torchvision name.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or does not fit the factory's network.
        UsageError: the file does not say how to build the network and no factory was given.
    """
    header, tensors = _read(Path(path))
    model = factory() if factory is not None else _build(Path(path), json.loads(header["origin"]))
    shared: dict[str, str] = json.loads(header["shared"])
    known = set(model.state_dict()) | {name for name, value in _places(model).items() if value is None}
    for name in tensors:
        if name not in known:
            raise CheckpointError(f"{path}: the network has no {name!r}; it was built by another factory")
    for name in model.state_dict():
        if name not in tensors and name not in shared:
            raise CheckpointError(f"{path}: {name!r} is missing; the file is of another network")
    for name, value in tensors.items():
        old = parameter(model, name)
        if old is not None and old.dim() != value.dim():
            raise CheckpointError(f"{path}: {name!r} has {value.dim()} axes where the network has {old.dim()}")
        assign(model, name, value)
    for module in model.modules():
        refresh(module)
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `save` was given to travel along."""
    found: dict[str, Any] = json.loads(_read(Path(path))[0]["metadata"])
    return found


def _tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, and for those that modules share, the name of the one that is kept."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) in first:
            shared[name] = first[id(value)]
        else:
            first[id(value)] = name
            tensors[name] = value.detach().cpu().contiguous().clone()
    return tensors, shared


def _places(model: nn.Module) -> dict[str, Tensor | None]:
    """Every parameter slot by name, empty ones (a convolution without bias) included."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in model.named_modules()
        for name, value in module._parameters.items()
    }


def _build(path: Path, arguments: dict[str, Any] | None) -> nn.Module:
    if arguments is None:
        raise UsageError(f"{path} does not say how its network is built; pass factory=, a function that returns it")
    name = str(arguments["name"])
    if ":" in name and not name.startswith(TORCHVISION):
        raise UsageError(
            f"{path} was made with the factory {name!r}, which is not run because a file says so; pass factory="
        )
    model = load_model(
        name, num_classes=arguments["num_classes"], in_channels=arguments["in_channels"], pretrained=False
    )
    remember_origin(model, arguments)
    return model


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds plain weights, not a compressed network; use --checkpoint for those")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name!r} has NaN or infinite values")
    return header, tensors
