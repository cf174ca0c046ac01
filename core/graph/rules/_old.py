"""What each operation does to channels: one table by operation name, for modules, functions, methods and aten alike.

An operation without an entry is opaque: the channels it reads are frozen with its name as the reason, and what it
returns carries no channel. So an unknown operation can cost compression, never correctness.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from core.graph.labels import Layer, Step, spread, unlabelled, varying_axes

if TYPE_CHECKING:
    from core.graph.labels import Labeller

NONE = 0


@dataclass(frozen=True)
class Call:
    """One node as the rules see it: an operation name, arguments, and the parameters of the module it calls."""

    node: fx.Node
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any
    owner: str = ""
    module: nn.Module | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at ``position`` or called ``name``."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else default

    def apply(self, x: Tensor) -> Tensor:
        """Run the operation, with its constant arguments, on another tensor."""
        result: Tensor
        if self.module is not None:
            result = self.module(x)
        elif self.node.op == "call_method":
            result = getattr(x, self.op)(*self.args[1:], **self.kwargs)
        else:
            constants = [x if isinstance(a, fx.Node) else a for a in self.args]
            target: Any = self.node.target
            result = target(*constants, **{k: v for k, v in self.kwargs.items() if k not in ("inplace", "input")})
        return result

    @property
    def shape(self) -> torch.Size:
        """Shape of the value returned."""
        shape: torch.Size = self.value.shape
        return shape


Rule = Callable[["Labeller", Call], Any]
RULES: dict[str, Rule] = {}

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

POOLS = {
    f"{adaptive}{kind}_pool{n}d" for adaptive in ("", "adaptive_") for kind in ("max", "avg") for n in (1, 2, 3)
} | {"lp_pool2d", "interpolate", "upsample", "upsample_nearest2d", "upsample_bilinear2d", "boolean_dispatch"}

MOVES = {
    "flatten", "view", "reshape", "permute", "transpose", "transpose_", "squeeze", "unsqueeze", "squeeze_",
    "unsqueeze_", "t", "chunk", "split", "split_with_sizes", "getitem", "unbind", "narrow", "select", "slice", "roll",
    "expand", "expand_as", "repeat", "movedim", "swapaxes", "swapdims", "unflatten", "flip", "stack", "pixel_shuffle",
    "channel_shuffle", "tensor_split", "moveaxis", "view_as", "reshape_as", "unfold", "_unsafe_view", "getattr",
    "pixel_unshuffle", "native_channel_shuffle",
}  # fmt: skip

RESHAPES = {"view", "reshape", "view_as", "reshape_as", "_unsafe_view"}

REDUCTIONS = {"mean", "sum", "amax", "amin"}

WRITES_SIZES = {"view", "reshape", "expand", "unflatten", "repeat", "_unsafe_view"}


def label_node(walk: Labeller, node: fx.Node, value: Any) -> Any:
    """Return the labels of what ``node`` returned."""
    if node.op in ("placeholder", "get_attr"):
        return unlabelled(value)
    if node.op == "output":
        walk.freeze(node.args, "it is the network's output")
        return None
    call = as_call(walk, node, value)
    labels = RULES.get(call.op, opaque)(walk, call)
    follow_sizes(walk, call, labels)
    return labels


def follow_sizes(walk: Labeller, call: Call, labels: Any) -> None:
    """Keep track of numbers that are channel counts: shaping another tensor with one would break when it is cut."""
    source = call.arg(0, "input")
    counted: list[Tensor] = [walk.counts[n] for n in call.node.all_input_nodes if n in walk.counts]
    if call.op in ("size", "getattr", "sym_size") and isinstance(walk.labels.get(source), Tensor):
        position = call.arg(1, "dim") if call.op != "getattr" else None
        if (call.op == "getattr" and call.args[1] == "shape") or position is None:
            walk.shapes[call.node] = source
        elif position % walk.labels[source].dim() == walk.channel_axis[source]:
            counted.append(torch.unique(walk.profiles[source]))
    elif call.op == "getitem" and source in walk.shapes:
        origin = walk.shapes[source]
        axes = range(walk.labels[origin].dim())[call.args[1]]
        if walk.channel_axis[origin] in ([axes] if isinstance(axes, int) else axes):
            counted.append(torch.unique(walk.profiles[origin]))
    if not counted:
        return
    if not isinstance(call.value, Tensor):
        walk.counts[call.node] = torch.cat(counted)
        return
    own = torch.unique(walk.of(source)) if isinstance(walk.labels.get(source), Tensor) else torch.empty(0)
    for count in counted:
        if not torch.equal(own, torch.unique(count)):
            walk.atoms.freeze(count, f"{call.op!r} gives another tensor a size that is their number")


def as_call(walk: Labeller, node: fx.Node, value: Any) -> Call:
    """Bring a node of any form to an operation name with arguments."""
    if node.op == "call_module":
        target = str(node.target)
        module = walk.submodules[target]
        op = MODULES.get(type(module), type(module).__name__.lower())
        held = {**module._parameters, **module._buffers}
        names = {name: f"{target}.{name}" for name, value in held.items() if value is not None}
        return Call(node, op, node.args, node.kwargs, value, target, module, names)
    if node.op == "call_method":
        return Call(node, str(node.target), node.args, node.kwargs, value)
    target_object: Any = node.target
    if hasattr(target_object, "_schema"):
        op = target_object._schema.name.split("::")[-1]
        op = f"aten.{op}" if f"aten.{op}" in RULES else op
    else:
        op = getattr(target_object, "__name__", str(target_object))
    return Call(node, op, node.args, node.kwargs, value)


# --- layers -----------------------------------------------------------------------------------------------------


def layer_rule(kind: str) -> Rule:
    """The rule of a convolution, linear layer or transposed convolution, as module or as function."""

    def rule(walk: Labeller, call: Call) -> Any:
        found = _layer_of(walk, call, kind)
        if found is None:
            return opaque(walk, call, "its weight is computed in forward(), not a parameter")
        layer, source = found
        weight = walk.fetch_attr(layer.weight)
        axis = call.value.dim() - 1 if kind == "linear" else 1
        labels = walk.of(source)
        walk.layers.setdefault(layer.name, layer)
        if any(a != axis % labels.dim() for a in varying_axes(labels)):
            walk.freeze(source, f"{layer.name} reads its channels along more than one axis")
            labels = unlabelled(walk.value(source))
        read = labels.movedim(axis, 0).flatten(1)[:, 0].contiguous()
        if layer.groups > 1:
            return _grouped(walk, call, layer, weight, source, read)
        walk.tie_axis(layer.weight, layer.read_axis, read)
        written = walk.axis(layer.weight, layer.write_axis, weight.shape[layer.write_axis])
        walk.tie_axis(layer.bias, 0, written)
        walk.steps[call.node] = Step(call.node, "layer", (source,), kind, layer=layer)
        return spread(written, axis, call.shape)

    return rule


def _layer_of(walk: Labeller, call: Call, kind: str) -> tuple[Layer, fx.Node] | None:
    if call.module is not None:
        if getattr(call.module, "parametrizations", None) is not None:
            return None
        groups = getattr(call.module, "groups", 1)
        name, weight = call.owner, walk.canonical(f"{call.owner}.weight")
        bias = f"{name}.bias"
    else:
        node = call.arg(1, "weight")
        if not (isinstance(node, fx.Node) and node.op == "get_attr"):
            return None
        weight = walk.canonical(str(node.target))
        name = weight.removesuffix(".weight")
        own, given = walk.submodules.get(name), call.arg(2, "bias")
        bias = str(given.target) if isinstance(given, fx.Node) and given.op == "get_attr" else ""
        bias = bias or (f"{name}.bias" if isinstance(own, (nn.Linear, nn.modules.conv._ConvNd)) else "")
        groups = 1 if kind == "linear" else call.arg(6, "groups", 1)
    source = call.arg(0, "input")
    if not isinstance(source, fx.Node):
        return None
    return Layer(name, kind, weight, walk.canonical(bias), int(groups)), source


def _grouped(walk: Labeller, call: Call, layer: Layer, weight: Tensor, source: fx.Node, read: Tensor) -> Any:
    """Depthwise convolutions are channel-wise steps; other grouped ones must lose as many channels in every group."""
    if layer.kind == "conv" and layer.groups == len(read) == weight.shape[0]:
        walk.tie_axis(layer.weight, 0, read)
        walk.tie_axis(layer.bias, 0, read)
        walk.steps[call.node] = Step(call.node, "depthwise", (source,), "conv", layer=layer)
        return spread(read, 1, call.shape)
    written = walk.axis(layer.weight, layer.write_axis, call.shape[1])
    if layer.kind != "conv" or layer.groups == len(read) or len(torch.unique(read)) < len(read):
        reason = f"{layer.name} is a grouped convolution ({layer.groups} groups) of a kind that is not cut"
        walk.freeze(source, reason)
        walk.atoms.freeze(written, reason)
    else:
        walk.tie_axis(
            layer.weight, layer.read_axis, read
        )  # as long as the input, not as the axis: see surgery.by_reader
        walk.atoms.balance(read, layer.groups, layer.name)
        walk.atoms.balance(written, layer.groups, layer.name)
    walk.tie_axis(layer.bias, 0, written)
    walk.steps[call.node] = Step(call.node, "layer", (source,), layer.kind, layer=layer)
    return spread(written, 1, call.shape)


# --- normalisation and per-channel parameters --------------------------------------------------------------------


def batch_norm(walk: Labeller, call: Call) -> Any:
    """Batch norm: every parameter and statistic follows the channels on axis 1."""
    source = call.arg(0, "input")
    parameters = _parameters(call, (1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var"))
    if "running_mean" not in parameters:
        return opaque(walk, call, "batch norm keeps no running statistics")
    return _per_channel(walk, call, source, parameters, "batch-norm", axis=1)


def layer_norm(walk: Labeller, call: Call) -> Any:
    """Layer norm over the channels: cut with them, but its mean and variance change with what is left."""
    source, shape = call.arg(0, "input"), call.arg(1, "normalized_shape", getattr(call.module, "normalized_shape", ()))
    labels = walk.of(source)
    if len(tuple(shape)) > 1:
        return opaque(walk, call, f"{call.owner or 'layer norm'} normalises over space and channels together")
    return _per_channel(walk, call, source, _parameters(call, (2, "weight"), (3, "bias")), "norm", labels.dim() - 1)


def group_norm(walk: Labeller, call: Call) -> Any:
    """Group norm: every group must lose as many channels; with one channel a group it is channel-wise."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    groups = int(getattr(call.module, "num_groups", 0) or call.arg(1, "num_groups"))
    parameters = _parameters(call, (2, "weight"), (3, "bias"))
    if groups == labels.size(1) and not parameters:
        return opaque(walk, call, f"{call.owner or 'group norm'} holds a number of groups and no parameter to cut")
    if varying_axes(labels) in ([], [1]) and groups < labels.size(1):
        walk.atoms.balance(labels.movedim(1, 0).flatten(1)[:, 0].contiguous(), groups, call.owner or "group norm")
    return _per_channel(walk, call, source, parameters, "norm", axis=1)


def _parameters(call: Call, *places: tuple[int, str]) -> dict[str, str]:
    """Names of the parameters of a module call, or of those handed to a function at the given places."""
    if call.parameters:
        return dict(call.parameters)
    given = {name: call.arg(position, name) for position, name in places}
    return {
        name: str(node.target) for name, node in given.items() if isinstance(node, fx.Node) and node.op == "get_attr"
    }


def instance_norm(walk: Labeller, call: Call) -> Any:
    """Instance norm is channel-wise."""
    return _per_channel(walk, call, call.arg(0, "input"), call.parameters, "norm", axis=1)


def prelu(walk: Labeller, call: Call) -> Any:
    """PReLU with one slope per channel follows the channels; with a single slope it is an activation."""
    source = call.arg(0, "input")
    parameters = dict(call.parameters)
    slope = call.arg(1, "weight")
    if isinstance(slope, fx.Node):
        parameters = {"weight": str(slope.target)}
    if walk.fetch_attr(parameters["weight"]).numel() == 1:
        return _through(walk, call, "activation", source)
    return _per_channel(walk, call, source, parameters, "prelu", axis=1)


def _per_channel(
    walk: Labeller, call: Call, source: fx.Node, parameters: Mapping[str, str], kind: str, axis: int
) -> Any:
    labels = walk.of(source)
    if any(a != axis for a in varying_axes(labels)):
        return opaque(walk, call)
    read = labels.movedim(axis, 0).flatten(1)[:, 0].contiguous()
    for name in parameters.values():
        if walk.fetch_attr(name).dim() == 1:
            walk.tie_axis(name, 0, read)
    walk.steps[call.node] = Step(call.node, kind, (source,), call.op, parameters=parameters, options=_eps(call))
    return labels


def _eps(call: Call) -> dict[str, Any]:
    return {"eps": getattr(call.module, "eps", None) or call.arg(7, "eps", 1e-5)}


# --- element-wise ------------------------------------------------------------------------------------------------


def activation(walk: Labeller, call: Call) -> Any:
    """An element-wise function of one tensor: the labels stay."""
    return _through(walk, call, "activation", call.arg(0, "input"))


def _through(walk: Labeller, call: Call, kind: str, source: Any) -> Any:
    if not isinstance(source, fx.Node) or not isinstance(walk.labels[source], Tensor):
        return unlabelled(call.value)
    walk.steps[call.node] = Step(call.node, kind, (source,), call.op, options={"call": call})
    return walk.labels[source]


def pointwise(kind: str) -> Rule:
    """The rule of a function of two tensors, element by element with broadcasting (``kind``: add or mul)."""

    def rule(walk: Labeller, call: Call) -> Any:
        if not isinstance(call.value, Tensor):
            return None
        nodes = [a for a in call.args[:2] if isinstance(a, fx.Node) and isinstance(walk.value(a), Tensor)]
        others = [a for a in nodes if a.op == "get_attr"]
        tensors = [a for a in nodes if a.op != "get_attr"]
        if not tensors:
            return unlabelled(call.value)
        if others:
            return _with_parameter(walk, call, kind, tensors[0], others[0])
        if len(tensors) == 1:
            inverse = call.op in ("div", "truediv") and not isinstance(call.args[0], fx.Node)
            scalar = (kind == "mul" and not inverse) or (call.op in ("sub", "add") and 0 in call.args)
            walk.steps[call.node] = Step(call.node, "activation", (tensors[0],), f"{kind}-scalar",
                                         options={"call": call, "exact": scalar})  # fmt: skip
            return walk.of(tensors[0])
        return _join(walk, call, kind, tensors[0], tensors[1])

    return rule


def _join(walk: Labeller, call: Call, kind: str, a: fx.Node, b: fx.Node) -> Any:
    left, right = _broadcast(walk, a, b, call.shape), _broadcast(walk, b, a, call.shape)
    flowing = tuple(n for n, labels in ((a, left), (b, right)) if labels is not None)
    if left is None or right is None:
        walk.steps[call.node] = Step(call.node, "pool", flowing, call.op)
        return left if right is None else right
    walk.atoms.tie(left, right)
    reason = f"it is combined by {call.op!r} with channels that cannot be removed"
    walk.atoms.freeze(left[right == NONE], reason)
    walk.atoms.freeze(right[left == NONE], reason)
    walk.steps[call.node] = Step(call.node, kind, (a, b), call.op)
    return left


def _broadcast(walk: Labeller, node: fx.Node, other: fx.Node, shape: torch.Size) -> Tensor | None:
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


def _with_parameter(walk: Labeller, call: Call, kind: str, source: fx.Node, parameter: fx.Node) -> Any:
    """A parameter or constant added to or multiplied with the channels is cut with them along their axis."""
    labels: Tensor = walk.of(source).expand(call.shape)
    name, value = str(parameter.target), walk.value(parameter)
    axes = varying_axes(labels)
    second = call.args[0] is parameter and call.op not in ("add", "add_", "mul", "mul_")
    step = Step(
        call.node, f"parameter-{kind}", (source,), call.op, parameters={"weight": name}, options={"second": second}
    )
    walk.steps[call.node] = step
    for axis in axes:
        own = axis - (labels.dim() - value.dim())
        if own < 0 or value.size(own) == 1:
            continue
        if len(axes) > 1:
            walk.freeze(source, f"{name} lies along several axes of these channels")
            break
        walk.tie_axis(name, own, labels.movedim(axis, 0).flatten(1)[:, 0].contiguous())
    return labels


# --- shape -------------------------------------------------------------------------------------------------------


def pool(walk: Labeller, call: Call) -> Any:
    """Pooling and resizing work inside each channel: labels must be constant over space."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    if not isinstance(call.value, Tensor) or any(a != 1 for a in varying_axes(labels)):
        return opaque(walk, call)
    walk.steps[call.node] = Step(call.node, "pool", (source,), call.op)
    read = labels.movedim(1, 0).flatten(1)[:, 0].contiguous()
    return spread(read, 1, call.shape)


def pad(walk: Labeller, call: Call) -> Any:
    """Spatial padding is channel-wise; padding the channels is opaque."""
    return pool(walk, call) if call.shape[1] == walk.of(call.arg(0, "input")).size(1) else opaque(walk, call)


def reduction(walk: Labeller, call: Call) -> Any:
    """A mean or sum over axes along which the channel does not change."""
    source = call.arg(0, "input")
    labels = walk.of(source)
    axes = call.arg(1, "dim", call.kwargs.get("axis"))
    if not isinstance(labels, Tensor) or axes is None:
        return opaque(walk, call)
    axes = [a % labels.dim() for a in ([axes] if isinstance(axes, int) else axes)]
    if set(axes) & set(varying_axes(labels)):
        return opaque(walk, call, f"{call.op!r} runs over the channels")
    walk.steps[call.node] = Step(call.node, "pool", (source,), call.op)
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    return labels if call.arg(2, "keepdim", False) else labels.squeeze(tuple(axes))


def concat(walk: Labeller, call: Call) -> Any:
    """Concatenation runs on the labels as it runs on the values."""
    parts = call.arg(0, "tensors")
    labels = torch.cat([walk.of(p) for p in parts], dim=call.arg(1, "dim", 0))
    walk.steps[call.node] = Step(call.node, "concat", tuple(parts), call.op)
    return labels


def move(walk: Labeller, call: Call) -> Any:
    """An operation that only moves elements is run on the labels."""
    source = call.arg(0, "input")
    if not isinstance(source, fx.Node):  # several tensors at once, as in stack
        return opaque(walk, call)
    if walk.labels[source] is None:
        return unlabelled(call.value)
    before = walk.of(source)
    if isinstance(before, (tuple, list, Mapping)):  # picking one of several tensors
        walk.steps[call.node] = Step(call.node, "move", (source,), call.op)
        return before[call.args[1]] if call.op == "getitem" else opaque(walk, call)
    if call.op == "getattr":
        return unlabelled(call.value)
    after = _run_on(walk, call, before)
    walk.steps[call.node] = Step(call.node, "move", (source,), call.op)
    if call.op == "chunk" and _even_parts(walk, call, before):
        return after
    if isinstance(after, Tensor) and _even_groups(walk, call, before, after):
        return after
    problem = _not_whole(call, before, after)
    if problem:
        walk.freeze(source, problem)
        return unlabelled(call.value)
    return after


def _even_parts(walk: Labeller, call: Call, before: Tensor) -> bool:
    """Chunking the channels in equal parts works on, if every part loses as many of them."""
    parts, axes = int(call.arg(1, "chunks")), varying_axes(before)
    if len(axes) != 1 or int(call.arg(2, "dim", 0)) % before.dim() != axes[0] or before.size(axes[0]) % parts:
        return False
    walk.atoms.balance(before.movedim(axes[0], 0).flatten(1)[:, 0].contiguous(), parts, repr(call.op))
    return True


def _even_groups(walk: Labeller, call: Call, before: Tensor, after: Tensor) -> bool:
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


def _run_on(walk: Labeller, call: Call, labels: Tensor) -> Any:
    if call.op in RESHAPES:  # labels are expanded views, which view() would refuse
        return labels.reshape(call.shape)
    rest = tuple(walk.value(a) for a in call.args[1:])
    named = {k: walk.value(v) for k, v in call.kwargs.items() if k != "input"}
    if call.module is not None:
        return call.module(labels)
    if call.node.op == "call_method":
        return getattr(labels, call.op)(*rest, **named)
    target: Any = call.node.target
    return target(labels, *rest, **named)


def _not_whole(call: Call, before: Tensor, after: Any) -> str:
    """Why a move cannot be followed: it takes the channels apart, or writes their number down."""
    if not bool((before != NONE).any()):
        return ""
    if not isinstance(after, Tensor) or not torch.equal(torch.unique(before), torch.unique(after)):
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


def no_tensor(walk: Labeller, call: Call) -> Any:
    """An operation on sizes and numbers."""
    return unlabelled(call.value)


def opaque(walk: Labeller, call: Call, reason: str = "") -> Any:
    """An operation nobody told us about: its inputs stay whole, its outputs carry no channel."""
    reason = reason or f"{call.op!r} reads it, and how that treats channels is not known"
    walk.freeze((call.args, dict(call.kwargs)), reason)
    parameters = [str(n.target).rpartition(".")[0] for n in call.node.all_input_nodes if n.op == "get_attr"]
    for owner in filter(None, (call.owner, *parameters)):
        walk.opaque.setdefault(owner, reason)
    return unlabelled(call.value)


MODULES: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv", nn.Conv2d: "conv", nn.Conv3d: "conv", nn.Linear: "linear",
    nn.ConvTranspose1d: "conv-transpose", nn.ConvTranspose2d: "conv-transpose", nn.ConvTranspose3d: "conv-transpose",
    nn.BatchNorm1d: "batch-norm", nn.BatchNorm2d: "batch-norm", nn.BatchNorm3d: "batch-norm",
    nn.SyncBatchNorm: "batch-norm", nn.LayerNorm: "layer_norm", nn.GroupNorm: "group_norm",
    nn.InstanceNorm1d: "instance_norm", nn.InstanceNorm2d: "instance_norm", nn.InstanceNorm3d: "instance_norm",
    nn.LeakyReLU: "leaky_relu", nn.PixelShuffle: "pixel_shuffle", nn.ChannelShuffle: "channel_shuffle",
    **{getattr(nn, f"{a}{k}Pool{n}d"): f"{b}{k.lower()}_pool{n}d"
       for a, b in (("", ""), ("Adaptive", "adaptive_")) for k in ("Max", "Avg") for n in (1, 2, 3)},
    nn.Upsample: "interpolate", nn.ZeroPad2d: "pad", nn.ReflectionPad2d: "pad", nn.ReplicationPad2d: "pad",
    nn.ConstantPad2d: "pad",
}  # fmt: skip

RULES.update(dict.fromkeys(EXACT | APPROXIMATE, activation))
RULES.update(dict.fromkeys(POOLS, pool))
RULES.update(dict.fromkeys(MOVES, move))
RULES.update(dict.fromkeys(REDUCTIONS, reduction))
RULES.update({n: pointwise("add") for n in ("add", "add_", "iadd", "sub", "sub_", "isub", "maximum", "minimum")})
RULES.update({n: pointwise("mul") for n in ("mul", "mul_", "imul", "div", "div_", "truediv", "itruediv")})
RULES.update(
    {
        "conv": layer_rule("conv"), "conv1d": layer_rule("conv"), "conv2d": layer_rule("conv"),
        "conv3d": layer_rule("conv"), "linear": layer_rule("linear"), "conv-transpose": layer_rule("conv-transpose"),
        "conv_transpose1d": layer_rule("conv-transpose"), "conv_transpose2d": layer_rule("conv-transpose"),
        "conv_transpose3d": layer_rule("conv-transpose"),
        "batch-norm": batch_norm, "aten.batch_norm": batch_norm, "layer_norm": layer_norm, "group_norm": group_norm,
        "instance_norm": instance_norm, "prelu": prelu, "cat": concat, "concat": concat, "concatenate": concat,
        "pad": pad, "size": no_tensor, "dim": no_tensor, "floordiv": no_tensor, "sym_size": no_tensor,
        "numel": no_tensor, "ndimension": no_tensor, "eq": no_tensor, "_assert": no_tensor, "mod": no_tensor,
    }
)  # fmt: skip

assert operator.add.__name__ == "add"  # operators answer to the same names as tensor functions
