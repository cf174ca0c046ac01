"""Weights from a file into a network: safetensors, a torch state dict, or ``{"state_dict": …}``; never runs code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import CheckpointError, nearest

MAGIC = {b"PK": "a torch file", b"\x80": "a torch file of the format before 1.6"}


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Fill ``model`` with the weights in ``path``; either all of them or, on an error, none.

    A leading ``module.`` on every key (left by DataParallel) is dropped; batch-norm counters may be missing.

    Raises:
        CheckpointError: the file is missing or unreadable, is not plain weights, or does not fit: keys, shapes,
            NaN or infinite values.
    """
    path = Path(path).expanduser()
    weights = _strip_module(read_weights(path), model)
    wanted = model.state_dict()
    for key in wanted:
        if key.endswith("num_batches_tracked"):
            weights.setdefault(key, wanted[key])
    _require_keys(path, weights, wanted)
    for key, tensor in weights.items():
        _require_fit(path, key, tensor, wanted[key])
    model.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors in ``path`` by key, on the CPU.

    Raises:
        CheckpointError: missing, a folder, corrupt, or more than plain weights.
    """
    head = read_bytes(path, 9)
    if head[8:] == b"{":
        return _read_safetensors(path)
    if not any(head.startswith(magic) for magic in MAGIC):
        raise CheckpointError(f"checkpoint {path} is neither a safetensors file nor a torch file, or it is damaged")
    return _plain(path, _read_torch(path))


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Read the first ``count`` bytes of a checkpoint, or all.

    Raises:
        CheckpointError: it is missing, a folder, or unreadable.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file; name the file with the weights in it")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is a damaged safetensors file: {_first_line(error)}") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights" in str(error).lower():
            remedy = "save model.state_dict() instead of the model"
            raise CheckpointError(
                f"checkpoint {path} holds more than plain weights, so it is not opened: {remedy}"
            ) from None
        raise CheckpointError(f"checkpoint {path} is damaged: {_first_line(error)}") from None
    except Exception as error:  # a damaged file makes the reader fail in any way
        raise CheckpointError(f"checkpoint {path} is damaged or no state dict: {_first_line(error)}") from None


def _plain(path: Path, loaded: Any) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        found = type(loaded).__name__
        raise CheckpointError(f'checkpoint {path} holds a {found}; expected a state dict or {{"state_dict": …}}')
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            found = type(value).__name__
            expected = 'expected a state dict or {"state_dict": …}'
            raise CheckpointError(f"checkpoint {path}: {key!r} is of type {found}, not a tensor; {expected}")
    return {str(key): value for key, value in loaded.items()}


def _strip_module(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    prefix = "module."
    own = all(key.startswith(prefix) for key in model.state_dict())
    if own or not all(key.startswith(prefix) for key in weights):
        return weights
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _require_keys(path: Path, weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if not missing and not unexpected:
        return
    parts = [f"it lacks {_some(missing)}"] if missing else []
    if unexpected:
        parts.append(f"it has {_some(unexpected)}, which the model does not know ({nearest(unexpected[0], wanted)})")
    raise CheckpointError(f"checkpoint {path} does not fit the model: {'; '.join(parts)}")


def _require_fit(path: Path, key: str, tensor: Tensor, wanted: Tensor) -> None:
    if tensor.shape != wanted.shape:
        shapes = f"{tuple(tensor.shape)} in the file, {tuple(wanted.shape)} in the model"
        raise CheckpointError(f"checkpoint {path} does not fit the model: {key!r} is {shapes}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"checkpoint {path}: {key!r} has NaN or infinite values; the training diverged")


def _some(keys: list[str], most: int = 3) -> str:
    shown = ", ".join(repr(key) for key in keys[:most])
    return shown if len(keys) <= most else f"{shown} and {len(keys) - most} more"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
