"""Numbers that are channel counts: where they go decides whether the channels can be removed.

A count may shape the tensor that it was read from, ``x.view(n, x.shape[1], -1)``: it changes as the tensor does.
Everything else that is done with it freezes the channels it counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from core.graph.atoms import NONE
from core.graph.labels import unlabelled, varying_axes
from core.graph.rules.call import Call, opaque
from core.graph.walk import Walk

FOLLOWERS = {"view", "reshape", "_unsafe_view", "unflatten", "expand", "layer_norm", "rms_norm"}
"""Operations that give a tensor a size: with its own count, they work on when it is cut."""

WHOLE = {"numel", "nelement"}
READ_SIZES = {"size", "sym_size", "dim", "ndimension", "getattr", *WHOLE}


def no_tensor(walk: Walk, call: Call) -> Any:
    """An operation on sizes and numbers, or one that asks a tensor for its sizes."""
    if call.op in READ_SIZES:
        walk.declare(*call.node.all_input_nodes)
    elif any(isinstance(walk.env[n], Tensor) for n in call.node.all_input_nodes):
        return opaque(walk, call)
    return unlabelled(call.value)


def new_constant(walk: Walk, call: Call) -> Any:
    """A new tensor that takes its type and device from another one, and nothing else."""
    walk.declare(call.arg(0, "input"))
    return unlabelled(call.value)


def follow_sizes(walk: Walk, call: Call, labels: Any) -> None:
    """Keep track of numbers that are channel counts, and freeze what they count where that would not change with it."""
    source = call.arg(0, "input")
    counted = [walk.counts[n] for n in call.node.all_input_nodes if n in walk.counts]
    if call.op in ("size", "getattr", "sym_size", *WHOLE) and isinstance(walk.labels.get(source), Tensor):
        counted += _read(walk, call, source)
    elif call.op == "getitem" and source in walk.shapes:
        counted = _picked(walk, call, walk.shapes[source])
    counted = [found for found in counted if bool((found != NONE).any())]
    if not counted:
        return
    if isinstance(call.value, Tensor) and call.op in FOLLOWERS and isinstance(labels, Tensor):
        own = torch.unique(walk.of(source))
        counted = [count for count in counted if not torch.equal(own, count)]
    elif _is_number(call.value) and call.op != "_assert":
        walk.counts[call.node] = torch.unique(torch.cat(counted))
        return
    for count in counted:
        walk.atoms.freeze(count, f"{call.op!r} uses their number")


def _read(walk: Walk, call: Call, source: fx.Node) -> list[Tensor]:
    """The channels counted by a size of ``source``; a whole shape is remembered."""
    labels: Tensor = walk.labels[source]
    everything = [torch.unique(labels)]
    if call.op in WHOLE:
        return everything
    if call.op == "getattr":
        if call.args[1] == "shape":
            walk.shapes[call.node] = source
        return everything if call.args[1] in ("shape", "nbytes") else []
    axis = call.arg(1, "dim")
    if axis is None:
        walk.shapes[call.node] = source
        return everything
    return everything if axis % labels.dim() in varying_axes(labels) else []


def _picked(walk: Walk, call: Call, origin: fx.Node) -> list[Tensor]:
    """The channels counted by one entry, or by a slice, of the shape of ``origin``."""
    labels: Tensor = walk.labels[origin]
    axes = range(labels.dim())[walk.value(call.args[1])]
    chosen = [axes] if isinstance(axes, int) else axes
    return [torch.unique(labels)] if set(chosen) & set(varying_axes(labels)) else []


def _is_number(value: Any) -> bool:
    """Whether a value is made of numbers alone, so that it can be followed further."""
    if isinstance(value, (tuple, list)):
        return all(_is_number(item) for item in value)
    return isinstance(value, (bool, int, float)) or value is None
