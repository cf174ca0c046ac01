"""Weights from a file into a network: safetensors, a torch state dict, or one in a table; never runs code."""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import CheckpointError, first_line, nearest
from core.files import read_bytes
from core.weights import COUNTER, quoted, require_finite, require_kind, require_plain

MAGIC = {b"PK": "a torch file", b"\x80": "a torch file of the format before 1.6"}
SAVE = "save model.state_dict() with torch.save once more"
TABLES = ("state_dict", "model_state_dict")
"""Where a table of what a training needs to go on keeps the weights."""
PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before every name."""
SPARE_BYTES, MOST_TIMES = 2**30, 16
"""A file may have so many bytes, and so many times the weights', more: an optimiser's state and the like."""
COMPRESSED = "neuron-merging-sweep/1"
"""What a file of `core.export` calls itself."""
BUFFERS = ("builtins bytearray", "__builtin__ bytearray")
"""What a pickle may ask for by its size alone, without having the bytes."""
ALIKE = 0.8
"""Names of weights end alike, so only those are taken for one another that differ in a letter or two."""
LEGACY_PICKLES = 5
"""A torch file of the format before 1.6 begins with so many pickles; the numbers follow."""


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Fill ``model`` with the weights in ``path``; either all of them or, on an error, none.

    A leading ``module.`` on every key (left by DataParallel), or ``model.`` or ``_orig_mod.``, is dropped; batch-norm
    counters may be missing.

    Raises:
        CheckpointError: the file is missing or unreadable, is not plain weights, or does not fit: keys, shapes,
            number formats, NaN or infinite values.
    """
    path = Path(path).expanduser()
    if is_compressed(path):
        raise CheckpointError(f"checkpoint {path} holds a compressed network; core.export.load brings it back")
    require_size(path, model)
    weights = _strip_prefix(read_weights(path), model)
    wanted = model.state_dict()
    for key in wanted:
        if key.endswith(COUNTER):
            weights.setdefault(key, wanted[key])
    _require_keys(path, weights, wanted)
    for key, tensor in weights.items():
        _require_fit(path, key, tensor, wanted[key])
    model.load_state_dict(weights)


def is_compressed(path: Path) -> bool:
    """Whether a file is one of `core.export`: a network that may be smaller than the one that builds it."""
    if read_bytes(path, 9)[8:] != b"{":
        return False
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == COMPRESSED
    except Exception:  # damaged, as its reader will say
        return False


def require_size(path: Path, model: nn.Module) -> None:
    """Refuse a file that is far too large for the weights of ``model``, before any of it is read.

    Raises:
        CheckpointError: it is, or there is none.
    """
    read_bytes(path, 1)
    there, own = path.stat().st_size, sum(value.nbytes for value in model.state_dict().values())
    if there > SPARE_BYTES + MOST_TIMES * own:
        sizes = f"{there / 2**30:,.1f} GB, and the network's weights take {own / 2**20:,.1f} MB"
        raise CheckpointError(f"checkpoint {path} is of another network or holds much else: it has {sizes}; {SAVE}")


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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # also of number formats that torch has no name for
        raise CheckpointError(f"checkpoint {path} is a damaged safetensors file: {first_line(error)}") from None


def _read_torch(path: Path) -> Any:
    _require_modest(path)
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
        raise CheckpointError(f"checkpoint {path} is damaged: {first_line(error)}") from None
    except Exception as error:  # a damaged file makes the reader fail in any way
        raise CheckpointError(f"checkpoint {path} is damaged or no state dict: {first_line(error)}") from None


def _require_modest(path: Path) -> None:
    """Refuse a torch file that would take more memory than it is long, before anything of it is unpacked.

    Torch stores its tensors as they are, so the sizes in the archive's directory add up to less than the file.

    Raises:
        CheckpointError: they add up to more, or the pickle in it asks for memory that the file does not fill.
    """
    try:
        if read_bytes(path, 4) != b"PK\x03\x04":  # as torch decides between its formats
            with path.open("rb") as file:
                for _ in range(LEGACY_PICKLES):
                    _require_no_buffers(path, file)
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("data.pkl") for entry in entries):
                what = "an exported program (.pt2)" if any("/models/" in e.filename for e in entries) else "an archive"
                raise CheckpointError(
                    f"checkpoint {path} is {what} and no weights; {SAVE}, or name a .safetensors file"
                )
            declared, there = sum(entry.file_size for entry in entries), path.stat().st_size
            if declared > there:
                sizes = f"{declared / 2**20:,.0f} MB from {there / 2**20:,.1f} MB"
                raise CheckpointError(f"checkpoint {path} is packed and would unpack to {sizes}; unpack it, or {SAVE}")
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _require_no_buffers(path, io.BytesIO(archive.read(entry)))
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive makes its reader fail in any way
        raise CheckpointError(f"checkpoint {path} is damaged: {first_line(error)}; {SAVE}") from None


def _require_no_buffers(path: Path, pickled: IO[bytes]) -> None:
    """Look through a pickle for `BUFFERS`; one that is damaged is left to torch, which stops where this stops.

    Raises:
        CheckpointError: the pickle names one of them.
    """
    texts: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "STACK_GLOBAL":
                argument = " ".join(map(str, texts[-2:]))
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
            if operation.name in ("GLOBAL", "STACK_GLOBAL") and argument in BUFFERS:
                raise CheckpointError(f"checkpoint {path} holds a bytearray, so it is not opened: {SAVE}")
    except CheckpointError:
        raise
    except Exception:  # genops fails in any way on what is no pickle
        return


def _plain(path: Path, loaded: Any) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        loaded = next((loaded[name] for name in TABLES if isinstance(loaded.get(name), Mapping)), loaded)
    expected = 'expected a state dict, {"state_dict": …} or {"model_state_dict": …}'
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(loaded).__name__}; {expected}")
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise CheckpointError(f"checkpoint {path} has a key of type {type(key).__name__}; {expected}")
        if not isinstance(value, Tensor):
            found = type(value).__name__
            raise CheckpointError(f"checkpoint {path}: {quoted(key)} is of type {found}, not a tensor; {expected}")
    return dict(loaded)


def _strip_prefix(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        own = all(key.startswith(prefix) for key in model.state_dict())
        if weights and not own and all(key.startswith(prefix) for key in weights):
            return _strip_prefix({key.removeprefix(prefix): value for key, value in weights.items()}, model)
    return weights


def _require_keys(path: Path, weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if not missing and not unexpected:
        return
    parts = [f"it lacks {_some(missing)}"] if missing else []
    if unexpected:
        parts.append(
            f"it has {_some(unexpected)}, which the model does not know ({nearest(unexpected[0], wanted, ALIKE)})"
        )
    raise CheckpointError(f"checkpoint {path} does not fit the model: {'; '.join(parts)}")


def _require_fit(path: Path, key: str, tensor: Tensor, wanted: Tensor) -> None:
    where = f"checkpoint {path}"
    require_plain(where, key, tensor)
    if tensor.shape != wanted.shape:
        shapes = f"{tuple(tensor.shape)} in the file, {tuple(wanted.shape)} in the model"
        raise CheckpointError(f"{where} does not fit the model: {quoted(key)} is {shapes}")
    require_kind(where, key, tensor, wanted)
    require_finite(where, key, tensor, wanted.dtype)


def _some(keys: list[str], most: int = 3) -> str:
    shown = ", ".join(quoted(key) for key in keys[:most])
    return shown if len(keys) <= most else f"{shown} and {len(keys) - most} more"
