"""What each operation does to channels: one table by operation name, for modules, functions, methods and aten alike.

A rule says what it describes: it writes down a `Step` with the tensors and parameters whose part in the operation it
knows (`Walk.step`, `Walk.declare`). Whatever else the operation reads, an input that carries channels, a
parameter, a number that is a channel count, is frozen, as is everything that an operation without a rule reads. So
what nobody described costs compression, never correctness.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from core.graph.labels import spread, unlabelled
from core.graph.rules import attention
from core.graph.rules.call import MODULES, Call, Rule, as_call, opaque
from core.graph.rules.layers import layer_rule, matmul
from core.graph.rules.moves import (
    MOVES,
    POOLS,
    REDUCTIONS,
    attribute_of,
    channel_shuffle,
    concat,
    move,
    pad,
    pool,
    reduction,
)
from core.graph.rules.norms import batch_norm, group_norm, instance_norm, layer_norm, prelu
from core.graph.rules.pointwise import ADDITIONS, APPROXIMATE, EXACT, GATES, PRODUCTS, activation, pointwise
from core.graph.rules.sizes import follow_sizes, new_constant, no_tensor
from core.graph.walk import Walk

__all__ = ["APPROXIMATE", "GATES", "MODULES", "OUTPUT", "RULES", "label_node"]

OUTPUT = "it is the network's output"
CHANGED = "its parameters are changed in forward() before they are used"

RULES: dict[str, Rule] = {
    **dict.fromkeys(EXACT | APPROXIMATE, activation),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(ADDITIONS, pointwise("add")),
    **dict.fromkeys(PRODUCTS, pointwise("mul")),
    **dict.fromkeys(("conv", "conv1d", "conv2d", "conv3d"), layer_rule("conv")),
    **{f"conv_transpose{n}d": layer_rule("conv-transpose") for n in (1, 2, 3)},
    "conv-transpose": layer_rule("conv-transpose"),
    "linear": layer_rule("linear"),
    **dict.fromkeys(("matmul", "mm"), matmul),
    **dict.fromkeys(("batch-norm", "batch_norm", "aten.batch_norm"), batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "prelu": prelu,
    **dict.fromkeys(("cat", "concat", "concatenate"), concat),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "paired": attention.paired,
    "attend": attention.attend,
    "weights_of": attention.weights_of,
    **dict.fromkeys(("windows", "joined"), attention.moved),
    "relative": attention.relative,
    "directions": attention.directions,
    "_patch_merging_pad": attention.merged_patches,
    "getattr": attribute_of,
    **dict.fromkeys(("new_full", "new_zeros", "new_ones", "new_empty"), new_constant),
    **dict.fromkeys(
        ("size", "dim", "floordiv", "sym_size", "numel", "nelement", "ndimension", "eq", "_assert", "mod"), no_tensor
    ),
}


def label_node(walk: Walk, node: fx.Node, value: Any) -> Any:
    """Return the labels of what ``node`` returned."""
    if node.op == "placeholder":
        return unlabelled(value)
    if node.op == "get_attr":
        return _parameter(walk, node, value)
    if node.op == "output":
        walk.freeze(node.args, OUTPUT)
        for source in node.all_input_nodes:
            if source in walk.counts:
                walk.atoms.freeze(walk.counts[source], "their number is part of the network's output")
            if source.op == "get_attr":
                walk.freeze_parameter(str(source.target), OUTPUT)
        return None
    call = as_call(walk, node, value)
    labels = _described(walk, call)
    follow_sizes(walk, call, labels)
    return labels


def _parameter(walk: Walk, node: fx.Node, value: Any) -> Any:
    """A parameter read as data is labelled like an activation, if one axis of it is longer than one."""
    name = str(node.target)
    if not isinstance(value, Tensor) or name not in walk.held:
        return unlabelled(value)
    axes = [axis for axis, size in enumerate(value.shape) if size > 1]
    if len(axes) != 1:
        return unlabelled(value)  # frozen where no rule declares it, see `Walk.undeclared`
    walk.step(node, "parameter", (), parameters={"weight": name}, options={"axis": axes[0]})
    return spread(walk.axis(name, axes[0], value.shape[axes[0]]), axes[0], value.shape)


def _described(walk: Walk, call: Call) -> Any:
    """What the operation's rule says, if it accounts for all that the operation reads."""
    rule = RULES.get(call.op)
    if rule is None or call.unknown:
        return opaque(walk, call, call.unknown)
    walk.declared = set()
    try:
        labels = rule(walk, call)
    except Exception:  # a form of the call that the rule does not know
        return opaque(walk, call, f"{call.op!r} is used in a form whose treatment of channels is not known")
    if not _fits(labels, call.value):
        return opaque(walk, call, f"{call.op!r} gives something that its description does not cover")
    if call.writes and _is_read_later(walk, call.node):
        return opaque(walk, call, f"{call.op!r} writes into it, and it is read again afterwards")
    rest = walk.undeclared(call.node)
    if rest and _of_parameters(call.node):
        return opaque(walk, call, CHANGED)
    if rest:
        return opaque(walk, call, f"how {call.op!r} treats its input {rest[0].name!r} is not known")
    return labels


def _of_parameters(node: fx.Node) -> bool:
    """Whether a value is computed from parameters and buffers alone: a weight that is changed before it is used."""
    pending, seen = [node], {node}
    while pending:
        for source in pending.pop().all_input_nodes:
            if source.op == "placeholder":
                return False
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return True


def _is_read_later(walk: Walk, node: fx.Node) -> bool:
    """Whether what an operation wrote into, or what that is a view of, is read under its old name later on."""
    at = node.args[0] if node.args else None
    while isinstance(at, fx.Node):
        if any(user is not node and node < user for user in at.users):
            return True
        step = walk.steps.get(at)
        at = step.inputs[0] if step is not None and step.kind == "move" else None
    return False


def _fits(labels: Any, value: Any) -> bool:
    """Whether labels have the structure and the shapes of the value that they describe."""
    if isinstance(value, Tensor):
        return isinstance(labels, Tensor) and labels.shape == value.shape
    if isinstance(value, (tuple, list)) and any(isinstance(item, Tensor) for item in value):
        same = isinstance(labels, (tuple, list)) and len(labels) == len(value)
        return same and all(_fits(part, item) for part, item in zip(labels, value, strict=True))
    return True
