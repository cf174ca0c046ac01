"""Element-wise operations: activations, sums, products, and parameters added or multiplied in."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, fx

from core.graph.atoms import NONE, compact
from core.graph.labels import unlabelled, varying_axes
from core.graph.nodes import StepKind
from core.graph.rules.call import Call, Rule, opaque
from core.graph.walk import Walk

EXACT = {
    "relu", "relu_", "leaky_relu", "leaky_relu_", "rrelu", "prelu", "abs", "neg", "identity", "dropout", "dropout_",
    "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "stochastic_depth", "contiguous", "clone", "detach",
    "detach_", "to", "float", "double", "half", "type_as", "alias", "lift_fresh_copy", "alpha_dropout",
    "_assert_tensor_metadata",
}  # fmt: skip
"""Element-wise and positively homogeneous: merging passes through exactly."""

APPROXIMATE = {
    "relu6", "gelu", "silu", "silu_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "sigmoid", "sigmoid_",
    "tanh", "tanh_", "softplus", "elu", "elu_", "selu", "celu", "mish", "mish_", "hardtanh", "hardtanh_", "clamp",
    "clamp_", "clip", "exp", "sqrt", "rsqrt", "pow", "square", "log", "softsign", "logsigmoid", "threshold",
    "hardshrink", "softshrink", "tanhshrink",
}  # fmt: skip
"""Element-wise, but φ(cx) ≠ cφ(x): merging is exact only between channels of equal scale."""

GATES = {"sigmoid", "sigmoid_", "hardsigmoid", "hardsigmoid_", "tanh", "softsign"}
"""Bounded activations: what passes them and then multiplies other channels is a gate."""

ADDITIONS = ("add", "add_", "iadd", "sub", "sub_", "isub", "maximum", "minimum")
PRODUCTS = ("mul", "mul_", "imul", "div", "div_", "truediv", "itruediv")


Pairing = Literal["add", "mul"]

WITH_PARAMETER: dict[Pairing, StepKind] = {"add": "parameter-add", "mul": "parameter-mul"}


def activation(walk: Walk, call: Call) -> Any:
    """An element-wise function of one tensor: the labels stay."""
    if call.op in ("to", "type_as"):
        walk.declare(*call.node.all_input_nodes)  # another tensor is only asked for its type and device
    return through(walk, call, "activation", call.arg(0, "input"))


def through(walk: Walk, call: Call, kind: StepKind, source: Any) -> Any:
    """A step that leaves every element where it is."""
    if not isinstance(source, fx.Node) or not isinstance(walk.labels[source], Tensor):
        return unlabelled(call.value)
    options = {"exact": call.value.is_floating_point()}  # whole numbers are rounded
    walk.step(call.node, kind, (source,), call.op, operation=call.operation, options=options)
    return walk.labels[source]


def pointwise(kind: Pairing) -> Rule:
    """The rule of a function of two tensors, element by element with broadcasting (``kind``: add or mul)."""

    def rule(walk: Walk, call: Call) -> Any:
        if not isinstance(call.value, Tensor):
            return None
        if call.kwargs.get("rounding_mode") is not None:
            return opaque(walk, call)
        operands = (call.arg(0, "input"), call.arg(1, "other"))
        nodes = [a for a in operands if isinstance(a, fx.Node) and isinstance(walk.value(a), Tensor)]
        others = [a for a in nodes if a.op == "get_attr"]
        tensors = [a for a in nodes if a.op != "get_attr"]
        if len(others) == 1 and len(tensors) == 1:
            return _with_parameter(walk, call, kind, tensors[0], others[0])
        if len(nodes) == 2:
            return _join(walk, call, kind, nodes[0], nodes[1])
        if not nodes:
            return unlabelled(call.value)
        # a number stands on the other side
        inverse = call.op in ("div", "truediv") and not isinstance(operands[0], fx.Node)
        scalar = (kind == "mul" and not inverse) or (call.op in ("sub", "add") and 0 in operands)
        options = {"exact": scalar}
        walk.step(call.node, "activation", (nodes[0],), f"{kind}-scalar", operation=call.operation, options=options)
        return walk.of(nodes[0])

    return rule


def _join(walk: Walk, call: Call, kind: Pairing, a: fx.Node, b: fx.Node) -> Any:
    left, right = _broadcast(walk, a, b, call.shape), _broadcast(walk, b, a, call.shape)
    flowing = tuple(n for n, labels in ((a, left), (b, right)) if labels is not None)
    if left is None or right is None:
        walk.step(call.node, "pool", flowing, call.op)
        walk.declare(a, b)
        found = left if right is None else right
        return unlabelled(call.value) if found is None else found
    walk.atoms.tie(left, right)
    reason = f"it is combined by {call.op!r} with channels that cannot be removed"
    one, other = compact(left, right)
    walk.atoms.freeze(one[other == NONE], reason)
    walk.atoms.freeze(other[one == NONE], reason)
    walk.step(call.node, kind, (a, b), call.op, options={"alpha": call.arg(2, "alpha", 1)})
    return left


def _broadcast(walk: Walk, node: fx.Node, other: fx.Node, shape: torch.Size) -> Tensor | None:
    """Labels of ``node`` at the joint shape, or None where one of its values serves many channels of ``other``."""
    labels: Tensor = walk.labels[node]
    lead = len(shape) - labels.dim()
    theirs: Tensor = walk.labels[other]
    for axis in varying_axes(theirs):
        own = axis + (len(shape) - theirs.dim()) - lead
        if own < 0 or labels.size(own) == 1 < theirs.size(axis):
            walk.freeze(node, "one value of it is broadcast over many channels")
            return None
    return labels.expand(shape)


def _with_parameter(walk: Walk, call: Call, kind: Pairing, source: fx.Node, parameter: fx.Node) -> Any:
    """A parameter or constant added to or multiplied with the channels is cut with them along their axis."""
    labels: Tensor = walk.of(source).expand(call.shape)
    name, value = str(parameter.target), walk.value(parameter)
    axes = varying_axes(labels)
    first = call.arg(0, "input") is parameter and call.op not in ("add", "add_", "mul", "mul_")
    options = {"second": first, "alpha": call.arg(2, "alpha", 1)}
    walk.step(call.node, WITH_PARAMETER[kind], (source,), call.op, parameters={"weight": name}, options=options)
    for axis in axes:
        own = axis - (labels.dim() - value.dim())
        if own < 0 or value.size(own) == 1:
            continue
        if len(axes) > 1:
            walk.freeze(source, f"{name} lies along several axes of these channels")
            walk.freeze_parameter(name, "it lies along several axes of channels")
            break
        walk.tie_axis(name, own, labels.movedim(axis, 0).flatten(1)[:, 0].contiguous())
    return labels
