"""Attention: what the functions of `core.graph.attention` and `core.graph.windows` do to the channels of heads.

A channel of the values is mixed over tokens, by weights that sum to one, and stays itself: whatever is true of it
before is true of it behind. Dimension j of a head's queries is multiplied with dimension j of its keys and with nothing
else, so the two are one channel, which their product reads. All heads must lose as many channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from core.graph.labels import spread, unlabelled, varying_axes
from core.graph.rules.call import Call, opaque
from core.graph.walk import Walk


def paired(walk: Walk, call: Call) -> Any:
    """Queries and keys: what they carry is tied pair by pair, and goes no further."""
    sources = (call.arg(0, "q"), call.arg(1, "k"))
    steps = [walk.steps.get(source) for source in sources]
    layers = [step.mixer for step in steps if step is not None and step.mixer is not None and step.mixer.linear]
    q, k = (_along_last(walk, source) for source in sources)
    if len(layers) < 2 or q is None or k is None or len(q) != len(k):
        return opaque(walk, call)
    heads = int(call.arg(2, "heads"))
    walk.atoms.tie(q, k)
    walk.atoms.balance(q, heads, layers[0].name.rpartition(".")[0])
    options = {"heads": heads, "batch_first": bool(call.arg(3, "batch_first", True)), "layers": tuple(layers)}
    walk.step(call.node, "pairs", sources, call.op, options=options)
    return unlabelled(call.value)


def attend(walk: Walk, call: Call) -> Any:
    """Mixed values: each channel by itself."""
    pair, source = call.arg(0, "pair"), call.arg(1, "v")
    labels = _along_last(walk, source)
    if labels is None:
        return opaque(walk, call)
    step = walk.steps.get(source)
    owner = step.mixer.name.rpartition(".")[0] if step is not None and step.mixer is not None else call.op
    walk.atoms.balance(labels, int(call.arg(2, "heads")), owner)
    _leave(walk, call, pair, source)
    walk.step(call.node, "pool", (source,), call.op)
    return spread(labels, call.value.dim() - 1, call.shape)


def weights_of(walk: Walk, call: Call) -> Any:
    """The weights of the mixture: they have no channels."""
    _leave(walk, call, call.arg(0, "pair"))
    return unlabelled(call.value)


def moved(walk: Walk, call: Call) -> Any:
    """Tokens that are put into windows, and back: each keeps its channels, and another tensor only says how many."""
    source = call.arg(0, "x")
    labels = _along_last(walk, source)
    if labels is None or any(_along_last(walk, node) is None for node in call.node.all_input_nodes):
        return opaque(walk, call)
    walk.declare(*call.node.all_input_nodes)
    walk.step(call.node, "pool", (source,), call.op)
    return spread(labels, call.value.dim() - 1, call.shape)


def merged_patches(walk: Walk, call: Call) -> Any:
    """Swin's four neighbouring tokens as one: their channels lie one after the other."""
    source = call.arg(0, "x")
    labels = _along_last(walk, source)
    if labels is None:
        return opaque(walk, call)
    walk.step(call.node, "pool", (source,), call.op)
    return spread(labels.repeat(4), call.value.dim() - 1, call.shape)


def relative(walk: Walk, call: Call) -> Any:
    """What is added to the products of queries and keys: a number for each head and two places, without channels."""
    table = call.arg(0, "table")
    walk.freeze(table, "it is added to the products of each head's queries and keys")
    for node in call.node.all_input_nodes:
        walk.declare(node, *([str(node.target)] if node.op == "get_attr" else []))
        if node.op == "get_attr":
            walk.freeze_parameter(str(node.target), "attention reads it as a table of places")
    return unlabelled(call.value)


def directions(walk: Walk, call: Call) -> Any:
    """Queries and keys divided by their lengths, to which every dimension of a head adds."""
    for node in (call.arg(0, "q"), call.arg(1, "k")):
        walk.freeze(node, "the lengths of each head's queries and keys are divided out")
    for node in call.node.all_input_nodes:
        walk.declare(node, *([str(node.target)] if node.op == "get_attr" else []))
    return unlabelled(call.value)


def _along_last(walk: Walk, source: fx.Node) -> Tensor | None:
    """The labels along the last axis; None where they change along another one too."""
    labels: Tensor = walk.of(source)
    if any(axis != labels.dim() - 1 for axis in varying_axes(labels)):
        return None
    return labels.movedim(-1, 0).flatten(1)[:, 0].contiguous()


def _leave(walk: Walk, call: Call, *described: fx.Node) -> None:
    """Freeze what a call reads besides: masks."""
    for node in call.node.all_input_nodes:
        walk.declare(node)
        if node not in described:
            walk.freeze(node, f"{call.op!r} reads it as a mask")
            walk.freeze_parameter(str(node.target), "attention reads it as a mask")
            walk.declare(str(node.target))
