"""One node as the rules see it, whatever form it has: module, function, method or aten operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from core.graph.labels import unlabelled
from core.graph.nodes import Operation
from core.graph.walk import Walk


@dataclass(frozen=True)
class Call:
    """An operation name, arguments, and the parameters of the module that is called.

    Attributes:
        node: the node.
        op: the operation's name.
        args: as the node has them, nodes included.
        kwargs: likewise.
        value: what it returned on the example inputs.
        owner: name of the module that is called, "" for a function.
        module: that module.
        parameters: what the module calls its parameters and buffers -> their names in the network.
        unknown: why no rule may speak for this call although one has its name; "" where one may.
        slope: the one slope of a PReLU.
    """

    node: fx.Node
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any
    owner: str = ""
    module: nn.Module | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""
    slope: float | None = None

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at ``position`` or called ``name``."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else default

    @property
    def writes(self) -> bool:
        """Whether the operation changes its first argument in place."""
        inplace = self.kwargs.get("inplace", False) or getattr(self.module, "inplace", False)
        return bool(inplace) or (self.op.endswith("_") and not self.op.endswith("__")) or self.op == "setitem"

    @property
    def operation(self) -> Operation:
        """The call without its value and its labels, to be repeated on another tensor."""
        return Operation(self.node, self.op, self.args, self.kwargs, self.module, self.slope)

    @property
    def shape(self) -> torch.Size:
        """Shape of the value returned."""
        shape: torch.Size = self.value.shape
        return shape


Rule = Callable[[Walk, Call], Any]

MODULES: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv", nn.Conv2d: "conv", nn.Conv3d: "conv", nn.Linear: "linear",
    nn.ConvTranspose1d: "conv-transpose", nn.ConvTranspose2d: "conv-transpose", nn.ConvTranspose3d: "conv-transpose",
    nn.BatchNorm1d: "batch-norm", nn.BatchNorm2d: "batch-norm", nn.BatchNorm3d: "batch-norm",
    nn.SyncBatchNorm: "batch-norm", nn.LayerNorm: "layer_norm", nn.GroupNorm: "group_norm", nn.RMSNorm: "rms_norm",
    nn.InstanceNorm1d: "instance_norm", nn.InstanceNorm2d: "instance_norm", nn.InstanceNorm3d: "instance_norm",
    nn.LeakyReLU: "leaky_relu", nn.PixelShuffle: "pixel_shuffle", nn.PixelUnshuffle: "pixel_unshuffle",
    nn.ChannelShuffle: "channel_shuffle", nn.Unfold: "im2col", nn.Fold: "col2im",
    **{getattr(nn, f"{a}{k}Pool{n}d"): f"{b}{k.lower()}_pool{n}d"
       for a, b in (("", ""), ("Adaptive", "adaptive_")) for k in ("Max", "Avg") for n in (1, 2, 3)},
    nn.Upsample: "interpolate", nn.UpsamplingNearest2d: "interpolate", nn.UpsamplingBilinear2d: "interpolate",
    **{getattr(nn, f"{kind}Pad{n}d"): "pad"
       for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular") for n in (1, 2, 3)},
}  # fmt: skip
"""Operation names of modules; others go by their class name in small letters."""

NAMES = {
    "torch.nn.functional.unfold": "im2col",
    "torch.nn.functional.fold": "col2im",
    "aten.batch_norm": "aten.batch_norm",
}
"""Functions that share their name with another operation."""

PUBLISHERS = (
    *("torch", "_operator", "builtins", "math", "torchvision.ops", "torchvision.models.swin_transformer"),
    *("core.graph.attention", "core.graph.windows"),
)
"""Where a function must come from for its name to mean what a rule takes it for."""


def as_call(walk: Walk, node: fx.Node, value: Any) -> Call:
    """Bring a node of any form to an operation name with arguments."""
    if node.op == "call_module":
        target = str(node.target)
        module = walk.submodules[target]
        op = MODULES.get(type(module), type(module).__name__.lower())
        held = {**module._parameters, **module._buffers}
        names = {name: f"{target}.{name}" for name, value in held.items() if value is not None}
        return Call(node, op, node.args, node.kwargs, value, target, module, names, _own_ways(module, target))
    if node.op == "call_method":
        return Call(node, str(node.target), node.args, node.kwargs, value)
    target_object: Any = node.target
    if hasattr(target_object, "_schema"):
        space, _, op = target_object._schema.name.partition("::")
        unknown = "" if space == "aten" else f"{space}::{op} is an operator of another package"
        return Call(node, NAMES.get(f"aten.{op}", op), node.args, node.kwargs, value, unknown=unknown)
    op, home = getattr(target_object, "__name__", str(target_object)), str(getattr(target_object, "__module__", ""))
    known = any(home == p or home.startswith(f"{p}.") for p in PUBLISHERS)
    unknown = "" if known else f"{op!r} is a function of {home}, and how it treats channels is not known"
    return Call(node, NAMES.get(f"{home}.{op}", op), node.args, node.kwargs, value, unknown=unknown)


def _own_ways(module: nn.Module, name: str) -> str:
    """Why a module does not do what its class says, if so."""
    if getattr(module, "parametrizations", None) is not None:
        return f"a weight of {name} is computed by a parametrization"
    if module._forward_hooks or module._forward_pre_hooks:
        return f"{name} has forward hooks (weight norm, pruning masks or the user's own)"
    if not type(module).__module__.startswith("torch.nn"):
        return f"{name} is a {type(module).__name__}, and how that treats channels is not known"
    return ""


def opaque(walk: Walk, call: Call, reason: str = "") -> Any:
    """An operation nobody told us about: its inputs stay whole, its outputs carry no channel."""
    reason = reason or f"{call.op!r} reads it, and how that treats channels is not known"
    walk.steps.pop(call.node, None)
    walk.freeze((call.args, dict(call.kwargs)), reason)
    given = [str(n.target) for n in call.node.all_input_nodes if n.op == "get_attr"]
    inside = [f"{call.owner}.{name}" for name, _ in call.module.named_parameters()] if call.module is not None else []
    for name in (*given, *inside):
        walk.freeze_parameter(name, reason)
    for owner in filter(None, (call.owner, *(name.rpartition(".")[0] for name in given))):
        walk.opaque.setdefault(owner, reason)
    return unlabelled(call.value)
