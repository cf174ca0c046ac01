"""Layers: convolutions, linear layers and products with a parameter read channels and write others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from core.graph.labels import spread, unlabelled, varying_axes
from core.graph.nodes import Layer, LayerKind
from core.graph.rules.call import MODULES, Call, Rule, opaque
from core.graph.walk import Walk

COMPUTED = "its weight is computed in forward(), not a parameter"


def layer_rule(kind: LayerKind) -> Rule:
    """The rule of a convolution, linear layer or transposed convolution, as module or as function."""

    def rule(walk: Walk, call: Call) -> Any:
        found = _layer_of(walk, call, kind)
        if found is None:
            return opaque(walk, call, COMPUTED)
        layer, source = found
        if walk.layers.get(layer.name, layer).kind != kind:
            return opaque(walk, call, f"the weight of {layer.name} is used in two ways")
        weight = walk.fetch_attr(layer.weight)
        axis = call.value.dim() - 1 if kind in ("linear", "matmul") else call.value.dim() - weight.dim() + 1
        labels = walk.of(source)
        walk.layers.setdefault(layer.name, layer)
        if any(a != axis % labels.dim() for a in varying_axes(labels)):
            walk.freeze(source, f"{layer.name} reads its channels along more than one axis")
            labels = unlabelled(walk.value(source))
        read = labels.movedim(axis, 0).flatten(1)[:, 0].contiguous()
        if layer.groups > 1:
            return _grouped(walk, call, layer, weight, source, read, axis)
        walk.tie_axis(layer.weight, layer.read_axis, read)
        written = walk.axis(layer.weight, layer.write_axis, weight.shape[layer.write_axis])
        walk.tie_axis(layer.bias, 0, written)
        walk.step(call.node, "layer", (source,), kind, layer=layer)
        return spread(written, axis, call.shape)

    return rule


def matmul(walk: Walk, call: Call) -> Any:
    """A product with a matrix that is a parameter is a linear layer; of other products nothing is known."""
    weight = call.arg(1, "other")
    if isinstance(weight, fx.Node) and weight.op == "get_attr" and call.value.dim() > 1:
        name = str(weight.target)
        if name in walk.held and walk.fetch_attr(name).dim() == 2:
            return layer_rule("matmul")(walk, call)
    return opaque(walk, call)


def _layer_of(walk: Walk, call: Call, kind: LayerKind) -> tuple[Layer, fx.Node] | None:
    if call.module is not None:
        groups, stride = getattr(call.module, "groups", 1), getattr(call.module, "stride", 1)
        name, weight = call.owner, walk.canonical(f"{call.owner}.weight")
        bias = f"{name}.bias"
    else:
        node = call.arg(1, "weight")
        if not (isinstance(node, fx.Node) and node.op == "get_attr"):
            return None
        weight = walk.canonical(str(node.target))
        name = weight.removesuffix(".weight")
        own, given = walk.submodules.get(name), call.arg(2, "bias")
        if isinstance(given, fx.Node) and given.op != "get_attr":
            return None  # a bias that is computed
        bias = str(given.target) if isinstance(given, fx.Node) else ""
        if kind != "matmul" and given is None and own is not None and _is_forward_of(call.node, own, name):
            bias = walk.unbiased[call.node] = f"{name}.bias"
        groups = call.arg(6, "groups", 1) if kind not in ("linear", "matmul") else 1
        stride = walk.value(call.arg(3, "stride", 1)) if kind == "conv-transpose" else 1
    source = call.arg(0, "input")
    if not isinstance(source, fx.Node) or weight not in walk.held:
        return None
    strides = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,) * (walk.fetch_attr(weight).dim() - 2)
    step = math.prod(strides) if kind == "conv-transpose" else 1
    return Layer(name, kind, weight, walk.canonical(bias), int(groups), step), source


def _is_forward_of(node: fx.Node, module: nn.Module, name: str) -> bool:
    """Whether a function call is what torch's own layer ``module`` does in its forward: it would use a new bias."""
    stack: Any = list(node.meta.get("nn_module_stack", {}).values())
    return type(module) in MODULES and bool(stack) and stack[-1][0] == name


def _grouped(walk: Walk, call: Call, layer: Layer, weight: Tensor, source: fx.Node, read: Tensor, axis: int) -> Any:
    """Depthwise convolutions are channel-wise steps; other grouped ones must lose as many channels in every group."""
    if layer.kind == "conv" and layer.groups == len(read) == weight.shape[0]:
        walk.tie_axis(layer.weight, 0, read)
        walk.tie_axis(layer.bias, 0, read)
        walk.step(call.node, "depthwise", (source,), "conv", layer=layer)
        return spread(read, axis, call.shape)
    written = walk.axis(layer.weight, layer.write_axis, call.shape[axis])
    if layer.kind != "conv" or layer.groups == len(read) or len(torch.unique(read)) < len(read):
        reason = f"{layer.name} is a grouped convolution ({layer.groups} groups) of a kind that is not cut"
        walk.freeze(source, reason)
        walk.atoms.freeze(written, reason)
    else:
        # as long as the input, not as the axis: see surgery.by_reader
        walk.tie_axis(layer.weight, layer.read_axis, read)
        walk.atoms.balance(read, layer.groups, layer.name)
        walk.atoms.balance(written, layer.groups, layer.name)
    walk.tie_axis(layer.bias, 0, written)
    walk.step(call.node, "layer", (source,), layer.kind, layer=layer)
    return spread(written, axis, call.shape)
