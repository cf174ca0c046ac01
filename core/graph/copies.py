"""Deep copies of modules, several times as fast as `copy.deepcopy`, and the same.

A network is copied a dozen times while it is looked at and cut, and most of what `copy.deepcopy` looks at in a module
is empty: a dictionary for each kind of hook. What is rebuilt here is only what copies the way plain objects do; modules
with a way of their own, and every value that is not a number, a word, a plain tensor or an empty container, are left
to `copy.deepcopy`, with the same memo.
"""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

ATOMIC = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device})
CONTAINERS = frozenset({dict, OrderedDict, set, list})


def deep_copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What ``copy.deepcopy(module, memo)`` returns; ``memo`` holds the copies that are made already, by id."""
    known: nn.Module | None = memo.get(id(module))
    if known is not None:
        return known
    own = type(module)
    state = None if hasattr(own, "__deepcopy__") or own in copyreg.dispatch_table else _state(module)
    if state is None or "__deepcopy__" in state:
        return copy.deepcopy(module, memo)
    made = memo[id(module)] = own.__new__(own)
    copied = {}
    for name, value in state.items():  # most are plain or empty, and a call costs more than the look
        kind = type(value)
        if kind in ATOMIC:
            copied[name] = value
        elif kind in CONTAINERS and not value and id(value) not in memo:
            copied[name] = memo[id(value)] = kind()
        else:
            copied[name] = _value(value, memo)
    made.__setstate__(copied)  # type: ignore[no-untyped-call]
    return made


def _state(module: nn.Module) -> dict[str, Any] | None:
    """All there is to a module that is made anew without arguments and given its attributes; None for others."""
    make, arguments, state, *rest = (*module.__reduce_ex__(4), None, None, None)[:5]
    plain = make is copyreg.__newobj__ and arguments == (type(module),) and type(state) is dict  # type: ignore[attr-defined]
    return state if plain and rest == [None, None] else None


def _value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in ATOMIC:
        return value
    if kind in CONTAINERS and not value and id(value) not in memo:
        made = memo[id(value)] = kind()
        return made
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        return deep_copy(value, memo)
    if kind in (dict, OrderedDict) and all(type(key) is str for key in value):
        made = memo[id(value)] = kind()
        for key, item in value.items():
            made[key] = _value(item, memo)
        return made
    if kind is tuple and all(type(item) in ATOMIC for item in value):
        return value
    if kind is Tensor and _is_plain(value):
        return _tensor(value, memo)
    return copy.deepcopy(value, memo)


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor is all of its storage, in order, and nothing else hangs on it."""
    ordinary = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return (
        ordinary
        and not (value.requires_grad or value.is_conj() or value.is_neg() or value.__dict__)
        and value.is_contiguous()
        and value.untyped_storage().nbytes() == value.numel() * value.element_size() > 0
    )


def _tensor(value: Tensor, memo: dict[int, Any]) -> Tensor:
    storages: dict[int, Any] = memo.setdefault("torch", {})  # type: ignore[call-overload]
    old = value.untyped_storage()._cdata
    if old in storages:  # another view of the same numbers
        return copy.deepcopy(value, memo)
    made = memo[id(value)] = value.detach().clone()
    storages[old] = made.untyped_storage()
    return made
