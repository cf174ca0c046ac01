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

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.errors import CheckpointError, UsageError
from core.exported import (
    FORMAT,
    Header,
    build_original,
    images_for,
    parse_header,
    require_fit,
    require_runs,
    take_apart,
)
from core.files import writing
from core.graph.packed import in_parts, unpack
from core.models import is_pretrained, origin, remember_origin
from core.parts import is_own_code
from core.plain import plain_torch
from core.slices import Decoupled
from core.surgery import assign, refresh


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
    terms = {name: part.terms for name, part in model.named_modules() if isinstance(part, Decoupled)}
    if terms:
        header["decoupled"] = json.dumps(terms)
    with writing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=header)
    return Path(path)


@plain_torch()
def load(path: str | Path, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Read a network that `save` wrote, in eval mode and on the CPU.

    Args:
        path: the file.
        factory: builds the original, uncompressed network; needed for networks that `load_model` did not build from
            a registered name or one of a publisher's.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or does not fit the factory's network.
        UsageError: the file does not say how to build the network and no factory was given.
    """
    path = Path(path)
    header, tensors = _read(path)
    model = factory() if factory is not None else _build(path, header, tensors)
    unpack(model, in_parts(model, tensors))
    # what it runs on is asked of the original: parts that are filled later fit nothing else yet
    shape = images_for(model, header.origin) if factory is None and header.origin is not None else None
    take_apart(path, model, header, tensors)
    require_fit(path, model, header, tensors)
    for name, value in tensors.items():
        assign(model, name, value.clone())  # the file's memory is not aligned, and kernels round otherwise there
    for module in model.modules():
        refresh(module)
    if shape is not None and header.origin is not None:
        classes = None if is_pretrained(header.origin["name"]) else header.origin["num_classes"]
        require_runs(path, model, shape, classes)
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `save` was given to travel along.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    return _read(Path(path), weights=False)[0].metadata


def made_of(path: str | Path) -> str:
    """The name that `load_model` built the original network by; "" where the file does not say.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    found = _read(Path(path), weights=False)[0].origin
    return "" if found is None else str(found["name"])


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


def _build(path: Path, header: Header, tensors: dict[str, Tensor]) -> nn.Module:
    if header.origin is None:
        raise UsageError(f"{path} does not say how its network is built; pass factory=, a function that returns it")
    name = header.origin["name"]
    if is_own_code(name):
        raise UsageError(
            f"{path} was made with the factory {name!r}, which is not run because a file says so; pass factory="
        )
    model = build_original(path, header.origin, tensors)
    remember_origin(model, header.origin)
    return model


def _read(path: Path, weights: bool = True) -> tuple[Header, dict[str, Tensor]]:
    """The header and, if ``weights``, the tensors.

    Raises:
        CheckpointError: there is no such file, or it cannot be read as one of safetensors.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist or is not a file")
        with safe_open(os.fspath(path), framework="pt") as file:
            header = parse_header(path, file.metadata() or {})
            return header, {name: file.get_tensor(name) for name in (file.keys() if weights else ())}
    except CheckpointError:
        raise
    except Exception as error:  # also of number formats that torch has no name for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a readable safetensors file: {reason}") from None
