"""The part of a network that can be traced where the whole cannot: a detector's backbone, an encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn

DEPTH = 3
"""Parts are looked for so many levels deep: ``model.features.stem``."""
TRIED = 5
"""So many parts are tried, the largest first."""
WORTH = 0.1
"""A part with a smaller share of the parameters is not worth a word."""


def traceable_parts(model: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Say which parts of ``model`` (a copy that may run, in eval mode) can be compressed by themselves; "": none can.

    Only parts count that are called once, with tensors alone.
    """
    found: dict[str, str] = {}
    seen = _calls(model, inputs)
    whole = max(1, _size(model))
    sizes = {name: _size(model.get_submodule(name)) / whole for name in seen}
    for name in sorted((name for name in seen if sizes[name] >= WORTH), key=lambda n: -sizes[n])[:TRIED]:
        part, inside = model.get_submodule(name), any(name.startswith(f"{other}.") for other in found)
        if not inside and not isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) and _is_traceable(part):
            shapes = ", ".join(f"({', '.join(map(str, x.shape))})" for x in seen[name])
            found[name] = f"model.{name} ({sizes[name]:.0%} of the parameters) on inputs {shapes}"
    if not found:
        return ""
    first = next(iter(found))
    return (
        f"what can be compressed by itself is {' and '.join(found.values())}:"
        f" model.{first} = compress(model.{first}, inputs).model"
    )


def _calls(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, tuple[Tensor, ...]]:
    """Part -> what it is called with, of those that are called once, with tensors alone."""
    found: dict[str, list[tuple[Any, ...] | None]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            plain = args and not kwargs and all(isinstance(x, Tensor) for x in args)
            found.setdefault(name, []).append(args if plain else None)

        return hook

    parts = [(name, part) for name, part in model.named_modules() if name and name.count(".") < DEPTH]
    hooks = [part.register_forward_pre_hook(note(name), with_kwargs=True) for name, part in parts]
    with contextlib.suppress(Exception):
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return {name: calls[0] for name, calls in found.items() if len(calls) == 1 and calls[0] is not None}


def _is_traceable(part: nn.Module) -> bool:
    try:
        fx.symbolic_trace(part)
    except Exception:
        return False
    return True


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
