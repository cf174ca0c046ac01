"""Normalisation and other per-channel parameters: cut with the channels they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import fx

from core.graph.labels import varying_axes
from core.graph.nodes import StepKind
from core.graph.rules.call import Call, opaque
from core.graph.rules.pointwise import through
from core.graph.walk import Walk

ATEN_BATCH_NORM = ((1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var"))
BATCH_NORM = ((3, "weight"), (4, "bias"), (1, "running_mean"), (2, "running_var"))


def batch_norm(walk: Walk, call: Call) -> Any:
    """Batch norm: every parameter and statistic follows the channels on axis 1.

    ``F.batch_norm`` takes (x, mean, var, weight, bias, training, momentum, eps), aten's (x, weight, bias, mean, …).
    """
    parameters = _parameters(call, *(ATEN_BATCH_NORM if call.op.startswith("aten.") else BATCH_NORM))
    own = call.module is None and call.arg(5, "training", False)
    if "running_mean" not in parameters or own:
        return opaque(walk, call, "batch norm keeps no running statistics")
    return per_channel(walk, call, parameters, "batch-norm", 1, {"eps": _eps(call, 7)})


def layer_norm(walk: Walk, call: Call) -> Any:
    """Layer or RMS norm over the channels: cut with them, but what it divides by changes with what is left."""
    shape = call.arg(1, "normalized_shape", getattr(call.module, "normalized_shape", ()))
    shape = walk.value(shape)
    labels = walk.of(call.arg(0, "input"))
    if len(tuple(shape)) > 1:
        return opaque(walk, call, f"{call.owner or 'layer norm'} normalises over space and channels together")
    options = {"eps": _eps(call, 3 if call.op == "rms_norm" else 4), "over": "rms" if call.op == "rms_norm" else "all"}
    return per_channel(walk, call, _parameters(call, (2, "weight"), (3, "bias")), "norm", labels.dim() - 1, options)


def group_norm(walk: Walk, call: Call) -> Any:
    """Group norm: every group must lose as many channels; with one channel a group it is channel-wise."""
    labels = walk.of(call.arg(0, "input"))
    groups = int(getattr(call.module, "num_groups", 0) or call.arg(1, "num_groups"))
    parameters = _parameters(call, (2, "weight"), (3, "bias"))
    if groups == labels.size(1) and not parameters:
        return opaque(walk, call, f"{call.owner or 'group norm'} holds a number of groups and no parameter to cut")
    single = groups == labels.size(1)
    if varying_axes(labels) in ([], [1]) and not single:
        walk.atoms.balance(labels.movedim(1, 0).flatten(1)[:, 0].contiguous(), groups, call.owner or "group norm")
    options = {"eps": _eps(call, 4), "over": "each" if single else "groups", "groups": groups}
    return per_channel(walk, call, parameters, "norm", 1, options)


def instance_norm(walk: Walk, call: Call) -> Any:
    """Instance norm is channel-wise."""
    return per_channel(walk, call, call.parameters, "norm", 1, {"eps": _eps(call, 7), "over": "each"})


def prelu(walk: Walk, call: Call) -> Any:
    """PReLU with one slope per channel follows the channels; with a single slope it is an activation."""
    parameters = dict(call.parameters)
    slope = call.arg(1, "weight")
    if isinstance(slope, fx.Node):
        if slope.op != "get_attr":
            return opaque(walk, call, "its slope is computed in forward(), not a parameter")
        parameters = {"weight": str(slope.target)}
    walk.declare(*parameters.values())
    slopes = walk.fetch_attr(parameters["weight"])
    if slopes.numel() == 1:
        return through(walk, replace(call, slope=float(slopes)), "activation", call.arg(0, "input"))
    return per_channel(walk, call, parameters, "prelu", 1, {})


def _parameters(call: Call, *places: tuple[int, str]) -> dict[str, str]:
    """Names of the parameters of a module call, or of those handed to a function at the given places."""
    if call.module is not None:
        return dict(call.parameters)
    given = {name: call.arg(position, name) for position, name in places}
    return {
        name: str(node.target) for name, node in given.items() if isinstance(node, fx.Node) and node.op == "get_attr"
    }


def per_channel(
    walk: Walk, call: Call, parameters: Mapping[str, str], kind: StepKind, axis: int, options: Mapping[str, Any]
) -> Any:
    """A step with parameters that lie along the channels on ``axis``."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    if any(a != axis for a in varying_axes(labels)):
        return opaque(walk, call)
    read = labels.movedim(axis, 0).flatten(1)[:, 0].contiguous()
    for name in parameters.values():
        if walk.fetch_attr(name).dim() == 1:
            walk.tie_axis(name, 0, read)
    walk.step(call.node, kind, (source,), call.op, parameters=parameters, options=options)
    return labels


def _eps(call: Call, position: int) -> Any:
    """ε as given; None is what RMS norm takes for the smallest step of the type it computes in."""
    found = getattr(call.module, "eps", None) or call.arg(position, "eps")
    return 1e-5 if found is None and call.op != "rms_norm" else found
