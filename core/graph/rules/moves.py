"""Operations that only move elements, and those that work inside each channel: pooling, padding, means over space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from core.graph.atoms import NONE, compact
from core.graph.labels import spread, unlabelled, varying_axes
from core.graph.rules.call import Call, opaque
from core.graph.walk import Walk

POOLS = {
    f"{adaptive}{kind}_pool{n}d" for adaptive in ("", "adaptive_") for kind in ("max", "avg") for n in (1, 2, 3)
} | {"lp_pool2d", "interpolate", "upsample", "upsample_nearest2d", "upsample_bilinear2d", "boolean_dispatch"}

MOVES = {
    "flatten", "view", "reshape", "permute", "transpose", "transpose_", "squeeze", "unsqueeze", "squeeze_",
    "unsqueeze_", "t", "chunk", "split", "split_with_sizes", "getitem", "unbind", "narrow", "select", "slice", "roll",
    "expand", "expand_as", "repeat", "movedim", "swapaxes", "swapdims", "unflatten", "flip", "stack", "pixel_shuffle",
    "tensor_split", "moveaxis", "view_as", "reshape_as", "unfold", "_unsafe_view", "pixel_unshuffle",
}  # fmt: skip

RESHAPES = {"view", "reshape", "view_as", "reshape_as", "_unsafe_view"}

REDUCTIONS = {"mean", "sum", "amax", "amin"}

TRANSPOSED = {"T", "mT", "H", "mH", "data", "real"}
"""Attributes of a tensor that are the tensor itself, with its elements elsewhere."""

METADATA = {"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "names"}
"""Attributes of a tensor that say nothing about its values."""

WRITES_SIZES = {"view", "reshape", "expand", "unflatten", "repeat", "_unsafe_view"}


def pool(walk: Walk, call: Call) -> Any:
    """Pooling and resizing work inside each channel: labels must be constant over space."""
    return _inside(walk, call, {})


def _inside(walk: Walk, call: Call, options: Mapping[str, Any], axis: int = 1) -> Any:
    source = call.arg(0, "input")
    labels = walk.of(source)
    if not isinstance(call.value, Tensor) or any(a != axis for a in varying_axes(labels)):
        return opaque(walk, call)
    walk.step(call.node, "pool", (source,), call.op, options=options)
    read = labels.movedim(axis, 0).flatten(1)[:, 0].contiguous()
    return spread(read, axis, call.shape)


def pad(walk: Walk, call: Call) -> Any:
    """Spatial padding is channel-wise; padding or cropping the channels is opaque.

    A constant other than zero is no longer proportional to the channel, so merging through it is approximate.
    """
    if call.module is not None:
        sizes, mode, fill = call.module.padding, "constant", getattr(call.module, "value", 0)
    else:
        aten = call.op == "constant_pad_nd"
        sizes, mode = call.arg(1, "pad"), "constant" if aten else call.arg(2, "mode", "constant")
        fill = call.arg(2, "value", 0) if aten else call.arg(3, "value", 0)
    sizes = walk.value(sizes)
    axes = call.value.dim() - 1
    reached = {axes - place // 2 for place, size in enumerate(sizes) if size != 0}
    labels = walk.of(call.arg(0, "input"))
    axis = next(iter(varying_axes(labels)), 1)  # the last one where channels come last
    if axis in reached or call.shape[axis] != labels.size(axis):
        return opaque(walk, call, f"{call.op!r} adds or takes away channels")
    return _inside(walk, call, {"exact": mode != "constant" or not fill}, axis)


def reduction(walk: Walk, call: Call) -> Any:
    """A mean or sum over axes along which the channel does not change."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    axes = call.arg(1, "dim", call.kwargs.get("axis"))
    if not isinstance(labels, Tensor) or axes is None:
        return opaque(walk, call)
    axes = [a % labels.dim() for a in ([axes] if isinstance(axes, int) else axes)] or list(range(labels.dim()))
    if set(axes) & set(varying_axes(labels)):
        return opaque(walk, call, f"{call.op!r} runs over the channels")
    walk.step(call.node, "pool", (source,), call.op)
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    return labels if call.arg(2, "keepdim", False) else labels.squeeze(tuple(axes))


def concat(walk: Walk, call: Call) -> Any:
    """Concatenation runs on the labels as it runs on the values."""
    parts = call.arg(0, "tensors")
    labels = torch.cat([walk.of(p) for p in parts], dim=call.arg(1, "dim", call.kwargs.get("axis", 0)))
    walk.step(call.node, "concat", tuple(parts), call.op)
    return labels


def attribute_of(walk: Walk, call: Call) -> Any:
    """An attribute of a tensor: its transpose, its data, or something about it that is no value of it."""
    source, name = call.args[0], str(call.args[1])
    if isinstance(call.value, Tensor):
        if name not in TRANSPOSED:
            return opaque(walk, call, f"'.{name}' reads it, and how that treats channels is not known")
        walk.step(call.node, "move", (source,), name)
        return getattr(walk.of(source), name)
    if name in METADATA:
        walk.declare(source)
    if name in METADATA - {"shape"} and source.op == "get_attr":
        walk.declare(str(source.target))
    return unlabelled(call.value)


def channel_shuffle(walk: Walk, call: Call) -> Any:
    """Dealing out the channels of each group in turn works on, if every group loses the same ones: they are tied."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    groups: Any = call.module.groups if call.module is not None else walk.value(call.arg(1, "groups"))
    if any(a != 1 for a in varying_axes(labels)):
        return opaque(walk, call)
    read = labels.movedim(1, 0).flatten(1)[:, 0].view(groups, -1)
    walk.atoms.tie(read[:1].expand_as(read), read)
    walk.atoms.freeze(read[:, (read == NONE).any(0)], "it is shuffled with channels that cannot be removed")
    walk.step(call.node, "move", (source,), call.op)
    return spread(read.T.flatten(), 1, call.shape)


def move(walk: Walk, call: Call) -> Any:
    """An operation that only moves elements is run on the labels."""
    source = call.arg(0, "input")
    if not isinstance(source, fx.Node):  # several tensors at once, as in stack
        return opaque(walk, call)
    before = walk.of(source)
    if isinstance(before, (tuple, list, Mapping)):  # picking one of several tensors
        walk.step(call.node, "move", (source,), call.op)
        return before[walk.value(call.args[1])] if call.op == "getitem" else opaque(walk, call)
    if before is None:  # no tensor: a shape, a number
        return unlabelled(call.value)
    after = _run_on(walk, call, before)
    walk.step(call.node, "move", (source,), call.op)
    if call.op == "chunk" and _even_parts(walk, call, before):
        return after
    if isinstance(after, Tensor) and _even_groups(walk, call, before, after):
        return after
    problem = _not_whole(call, before, after)
    if problem:
        walk.freeze(source, problem)
        return unlabelled(call.value)
    return after


def _even_parts(walk: Walk, call: Call, before: Tensor) -> bool:
    """Chunking the channels in equal parts works on, if every part loses as many of them."""
    parts, axes = int(call.arg(1, "chunks")), varying_axes(before)
    if len(axes) != 1 or int(call.arg(2, "dim", 0)) % before.dim() != axes[0] or before.size(axes[0]) % parts:
        return False
    walk.atoms.balance(before.movedim(axes[0], 0).flatten(1)[:, 0].contiguous(), parts, repr(call.op))
    return True


def _even_groups(walk: Walk, call: Call, before: Tensor, after: Tensor) -> bool:
    """Splitting the channel axis in (groups, rest) works on, if every group loses the same ones: they are tied.

    As in a channel shuffle, view(n, groups, c // groups, …): the rest must be computed from the channel count.
    """
    old, new = varying_axes(before), varying_axes(after)
    if call.op not in ("view", "reshape") or len(old) != 1 or len(new) != 2 or new[1] != new[0] + 1:
        return False
    sizes = call.args[1:] if not isinstance(call.args[1], (tuple, list)) else tuple(call.args[1])
    if (
        not isinstance(sizes[new[0]], int)
        or sizes[new[0]] < 1
        or (isinstance(sizes[new[1]], int) and sizes[new[1]] > 1)
    ):
        return False
    first = after.narrow(new[0], 0, 1).expand_as(after)
    walk.atoms.tie(first, after)
    return True


def _run_on(walk: Walk, call: Call, labels: Tensor) -> Any:
    if call.op in RESHAPES:  # labels are expanded views, which view() would refuse
        return labels.reshape(call.shape)
    rest = tuple(walk.value(a) for a in call.args[1:])
    named = {k: walk.value(v) for k, v in call.kwargs.items() if k != "input"}
    if call.module is not None:
        return call.module(labels)
    if call.node.op == "call_method":
        return getattr(labels, call.op.removesuffix("_"))(*rest, **named)
    target: Any = call.node.target
    return target(labels, *rest, **named)


def _not_whole(call: Call, before: Tensor, after: Any) -> str:
    """Why a move cannot be followed: it takes the channels apart, or writes their number down."""
    there = torch.unique(compact(before)[0])
    if not bool((there != NONE).any()):
        return ""
    if not isinstance(after, Tensor) or not torch.equal(there, torch.unique(compact(after)[0])):
        return f"{call.op!r} takes these channels apart"
    if call.op == "getitem" and _picks(call.args[1]):
        return "they are picked by numbers written into the code"
    axes = varying_axes(after)
    if call.op == "roll" and axes == varying_axes(before) and not torch.equal(before, after):
        return "'roll' shifts these channels by a fixed number"
    if len(axes) > 1 and len(varying_axes(before)) <= 1:
        return f"{call.op!r} spreads these channels over several axes"
    if call.op in WRITES_SIZES and axes and _literal(call, axes[0]):
        return f"the channel count {after.size(axes[0])} is written into {call.op!r}"
    return ""


def _picks(index: Any) -> bool:
    """Whether an index holds a list or a tensor of numbers."""
    return any(isinstance(i, (list, Tensor, fx.Node)) for i in (index if isinstance(index, tuple) else (index,)))


def _literal(call: Call, axis: int) -> bool:
    sizes = call.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return axis < len(sizes) and isinstance(sizes[axis], int) and sizes[axis] > 1 and call.op != "unflatten"
