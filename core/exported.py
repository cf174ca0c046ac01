"""What a file of `core.export` must hold before a network is built from it, and whether the built one runs.

A file is not trusted: its header may lack keys, name a network of any size, or hold tensors of another one. Everything
here ends in one sentence, and nothing that the file merely claims is given memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.checkpoint import COMPRESSED
from core.errors import CheckpointError, NeuronMergingError, first_line
from core.models import is_pretrained, load_model
from core.slices import KINDS, put, stand_in
from core.weights import kind, named, quoted, require_finite, require_plain

FORMAT = COMPRESSED
COUNTS = ("num_classes", "in_channels")
"""Arguments of `load_model` that are whole numbers, or None: what the factory makes by itself."""
AGAIN = "the file is damaged, save the network once more"
SIDES = (28, 32, 64, 224, 299)
"""Images of these sizes are tried until the original network takes one."""
SPARE_BYTES, MOST_TIMES = 2**30, 64
"""An original network may need so much memory, and so many times its compressed file more."""


@dataclass(frozen=True)
class Header:
    """What travels along with the tensors.

    Attributes:
        origin: arguments of `load_model` that build the original network; None: a factory is needed.
        shared: name of a tensor -> name of the one in the file that it is one with.
        metadata: what `core.export.save` was given.
        decoupled: convolution of the original -> filters per channel of the two layers in its place.
    """

    origin: dict[str, Any] | None
    shared: dict[str, str]
    metadata: dict[str, Any]
    decoupled: dict[str, int] = field(default_factory=dict)


def parse_header(path: Path, texts: Mapping[str, str]) -> Header:
    """Check the header of the file ``path``.

    Raises:
        CheckpointError: it is of a file of plain weights, or damaged.
    """
    if texts.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds plain weights, not a compressed network; use --checkpoint for those")
    origin, shared, metadata = (_json(path, texts, name) for name in ("origin", "shared", "metadata"))
    if origin is not None and not _is_origin(origin):
        raise CheckpointError(f"{path}: 'origin' in its header does not say how to build a network; {AGAIN}")
    if not isinstance(shared, dict) or not all(isinstance(target, str) for target in shared.values()):
        raise CheckpointError(f"{path}: 'shared' in its header is no table of names; {AGAIN}")
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: 'metadata' in its header is no table; {AGAIN}")
    decoupled = _json(path, texts, "decoupled") if "decoupled" in texts else {}
    if not isinstance(decoupled, dict) or not all(_is_count(terms) for terms in decoupled.values()):
        raise CheckpointError(f"{path}: 'decoupled' in its header is no table of numbers; {AGAIN}")
    return Header(origin, shared, metadata, decoupled)


def _json(path: Path, texts: Mapping[str, str], name: str) -> Any:
    if name not in texts:
        raise CheckpointError(f"{path}: its header has no {name!r}; {AGAIN}")
    try:
        return json.loads(texts[name])
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: {name!r} in its header is not JSON; {AGAIN}") from None


def _is_origin(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return False
    return all(name in found and (found[name] is None or _is_count(found[name])) for name in COUNTS)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def build_original(path: Path, origin: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the original network that a header names, with random weights, if the file can be of it.

    Raises:
        CheckpointError: the header asks for more classes, channels or memory than the file's tensors speak for.
        UnknownNameError: no such model.
    """
    arguments = {name: origin[name] for name in ("name", "num_classes", "in_channels")}
    longest = max((max(value.shape) for value in tensors.values() if value.dim() and value.numel()), default=0)
    for what in COUNTS:
        if not is_pretrained(arguments["name"]) and (arguments[what] or 1) > longest:
            raise CheckpointError(f"{path}: {what} = {_short(arguments[what])} in its header fits no tensor; {AGAIN}")
    allowed = SPARE_BYTES + MOST_TIMES * sum(value.nbytes for value in tensors.values())
    if (needed := _bytes_of(arguments)) > allowed:
        raise CheckpointError(f"{path}: its header asks for a network of {needed / 2**30:.0f} GB; {AGAIN}")
    try:
        return load_model(**arguments, pretrained=False)
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: its network cannot be built ({first_line(error)}); {AGAIN}") from None


def _bytes_of(arguments: Mapping[str, Any]) -> int:
    """Memory that a network would take, found without taking it; 0 where it cannot be found that way.

    Raises:
        NeuronMergingError: the network cannot be asked for, as `load_model` says.
    """
    try:
        with torch.device("meta"):
            model = load_model(**arguments, pretrained=False)
    except NeuronMergingError:
        raise
    except Exception:  # a network may look at its own numbers while it is built
        return 0
    return sum(value.nbytes for value in (*model.parameters(), *model.buffers()))


def take_apart(path: Path, model: nn.Module, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Put two layers without numbers in the place of each convolution that the file has decoupled, in place.

    Raises:
        CheckpointError: there is no such convolution, or the file's tensors are not those of two layers for it.
    """
    convolutions = {name: module for name, module in model.named_modules() if type(module) in KINDS and name}
    for name, terms in header.decoupled.items():
        conv = convolutions.get(name)
        if conv is None:
            raise CheckpointError(
                f"{path}: the network has no convolution {quoted(name)}; it was built by another factory"
            )
        parts = [tensors.get(f"{name}.{part}.weight") for part in ("depthwise", "pointwise")]
        new = stand_in(conv, terms, *(None if part is None else tuple(part.shape) for part in parts))
        if new is None:
            raise CheckpointError(f"{path}: {quoted(name)} is not two layers of {_short(terms)} terms; {AGAIN}")
        put(model, conv, new.train(conv.training))


def require_fit(path: Path, model: nn.Module, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Compare names, axes and number formats with the original network ``model``.

    Raises:
        CheckpointError: the file is of another network, or damaged.
    """
    slots = _slots(model)
    for name, value in tensors.items():
        if name not in slots:
            raise CheckpointError(f"{path}: the network has no {quoted(name)}; it was built by another factory")
        _require_tensor(path, name, value, slots[name])
    for name in model.state_dict():
        if name not in tensors and name not in header.shared:
            raise CheckpointError(f"{path}: {quoted(name)} is missing; the file is of another network")
    for name, target in header.shared.items():
        if target not in tensors or name in tensors or slots.get(name) is None or slots[name] is not slots[target]:
            names = f"{quoted(name)} and {quoted(target)}"
            raise CheckpointError(f"{path}: its header says that {names} are one, and in the network they are not")


def _slots(model: nn.Module) -> dict[str, Tensor | None]:
    """Every parameter and buffer by name; None for an empty place, such as the bias of a layer without one."""
    empty = {
        f"{prefix}.{name}" if prefix else name: None
        for prefix, module in model.named_modules()
        for name, value in module._parameters.items()
        if value is None
    }
    return {**empty, **dict(model.named_buffers(remove_duplicate=False)), **model.state_dict(keep_vars=True)}


def _require_tensor(path: Path, name: str, value: Tensor, old: Tensor | None) -> None:
    where = str(path)
    require_plain(where, name, value)
    require_finite(where, name, value, value.dtype)
    if old is None:
        return
    if old.dim() != value.dim():
        raise CheckpointError(f"{path}: {quoted(name)} has {value.dim()} axes where the network has {old.dim()}")
    if any(new > before for new, before in zip(value.shape, old.shape, strict=True)):
        shapes = f"{tuple(value.shape)} where the original network has {tuple(old.shape)}"
        raise CheckpointError(f"{path}: {quoted(name)} is {shapes}, and compressing only removes; {AGAIN}")
    if kind(value) != kind(old):
        raise CheckpointError(f"{path}: {quoted(name)} is {named(value)} where the network has {named(old)}; {AGAIN}")


def images_for(model: nn.Module, origin: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of images that ``model`` takes, found without computing; None where none was found."""
    channels = [origin["in_channels"]] if origin["in_channels"] else [1, 3]
    return next(((c, side, side) for side in SIDES for c in channels if _takes(model, (c, side, side))), None)


def require_runs(path: Path, model: nn.Module, shape: tuple[int, int, int], classes: int | None) -> None:
    """Run the filled network on images of a shape that the original took.

    Raises:
        CheckpointError: its layers do not fit together, or it tells another number of classes apart.
    """
    try:
        output = _run(model, shape)
    except Exception as error:
        raise CheckpointError(f"{path}: its layers do not fit together ({first_line(error)}); {AGAIN}") from None
    if classes is not None and output.shape[1] != classes:
        raise CheckpointError(f"{path}: its network has {output.shape[1]} outputs for {classes} classes; {AGAIN}")
    found = {value.dtype for value in (*model.parameters(), *model.buffers()) if value.is_floating_point()}
    if len(found) > 1 and not any(_computes(model, shape, dtype) for dtype in found):  # shapes do not tell
        formats = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise CheckpointError(f"{path}: its layers do not compute together in {formats}; {AGAIN}")


def _computes(model: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype) -> bool:
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape, dtype=dtype))
    except RuntimeError:
        return False
    return True


def _takes(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    try:
        output = _run(model, shape)
    except Exception:  # whatever a network says to images of another size
        return False
    return isinstance(output, Tensor) and output.dim() == 2


def _run(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Shapes alone: parameters, buffers and images have no data."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    blank = {name: torch.empty_like(value, device="meta") for name, value in held.items()}
    dtype = next((value.dtype for value in blank.values() if value.is_floating_point()), torch.float32)
    with torch.no_grad():
        return torch.func.functional_call(model.eval(), blank, (torch.empty(2, *shape, device="meta", dtype=dtype),))


def _short(value: int) -> str:
    return str(value) if value < 10**12 else "a huge number"
