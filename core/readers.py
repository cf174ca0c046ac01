"""Which layers a sequential method refits, and in which order the graph has to run for it.

All calls of a module that is used at several places share one weight, so their rows are stacked and solved for once.
For that all their inputs must be there before any of their outputs is needed: the calls are brought side by side in the
order of the graph. Where one of them reads, by whatever way, what another has given, that is impossible, and the layer
keeps its merged weights.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from core.channels import Channels
from core.graph import Layer, Step
from core.graph.trace import GraphRunner
from core.windows import Window, window_of

Place = tuple[fx.Node, ...]


@dataclass(frozen=True)
class Reader:
    """A layer to refit.

    Attributes:
        layer: the layer.
        calls: where the graph uses it.
        windows: what it reads, for each call.
    """

    layer: Layer
    calls: tuple[Step, ...]
    windows: tuple[Window, ...]

    @property
    def nodes(self) -> Place:
        """Where the graph uses it."""
        return tuple(step.node for step in self.calls)


def find_readers(
    channels: Channels, steps: Iterable[Step], run: GraphRunner
) -> tuple[list[Reader], list[Place], dict[str, str]]:
    """Those of ``steps``, all of them layers, that can be refitted.

    Returns:
        The readers; the nodes in the order to run them in, calls of a reader together; and by layer that is none, why.
    """
    weights: dict[str, list[Step]] = {}
    for step in channels.graph.steps.values():
        if step.layer is not None:
            weights.setdefault(step.layer.weight, []).append(step)
    found, notes, nodes = list[Reader](), dict[str, str](), list(channels.graph.traced.graph.nodes)
    links = dependencies(nodes, run.submodules)
    together: list[Place] = []
    order = in_order(nodes, links, together)
    assert order is not None, "a traced graph has no circles"
    for weight in dict.fromkeys(step.layer.weight for step in steps if step.layer is not None):
        reader = _reader(weights[weight], run)
        several = isinstance(reader, Reader) and len(reader.calls) > 1
        if isinstance(reader, Reader) and several:
            new = in_order(nodes, links, [*together, reader.nodes])
            if new is None:
                reader = "is used several times, and reads what it has written itself"
            else:
                together, order = [*together, reader.nodes], new
        if isinstance(reader, Reader):
            found.append(reader)
        else:
            names = [step.layer.name for step in weights[weight] if step.layer is not None]
            notes |= {name: f"{name} {reader}: it keeps the merged weights" for name in names}
    at = {node: number for number, place in enumerate(order) for node in place}
    return sorted(found, key=lambda reader: at[reader.nodes[0]]), order, notes


def _reader(calls: Sequence[Step], run: GraphRunner) -> Reader | str:
    layers = [step.layer for step in calls if step.layer is not None]
    alike = {(step.kind, la.kind, la.bias, la.groups) for step, la in zip(calls, layers, strict=True)}
    if len(alike) > 1:
        return "shares its weight with a layer of another kind or with another bias"
    windows = [window_of(step, la, run) for step, la in zip(calls, layers, strict=True)]
    usable = tuple(window for window in windows if isinstance(window, Window))
    wrong = next((window for window in windows if isinstance(window, str)), "")
    return wrong or Reader(layers[0], tuple(calls), usable)


def dependencies(nodes: Sequence[fx.Node], modules: Mapping[str, Any]) -> dict[fx.Node, set[fx.Node]]:
    """Node -> the nodes that must have run before it: its inputs, and those that read what it is going to overwrite."""
    found = {node: set(node.all_input_nodes) for node in nodes}
    rank = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        if not (node.all_input_nodes and _writes(node, modules)):
            continue
        for other in node.all_input_nodes[0].users:
            if other is not node:
                first, second = sorted((node, other), key=lambda n: rank[n])
                found[second].add(first)
    return found


def _writes(node: fx.Node, modules: Mapping[str, Any]) -> bool:
    """Whether a node may change its first input in place."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    target: Any = node.target
    name = str(getattr(target, "__name__", target)).split(".")[0]
    known = getattr(target, "__module__", "") == "_operator" and name.startswith("i")
    return known or name == "setitem" or (name.endswith("_") and not name.endswith("__")) or True in (
        *node.args, *node.kwargs.values()
    )  # fmt: skip


def in_order(
    nodes: Sequence[fx.Node], links: Mapping[fx.Node, set[fx.Node]], together: Sequence[Place]
) -> list[Place] | None:
    """The nodes in the order of the graph, those of each group in ``together`` at one place; None if that cannot be."""
    first = {node: group[0] for group in together for node in group}
    members = {group[0]: group for group in together}
    rank = {node: number for number, node in enumerate(nodes)}
    waits = {node: set[fx.Node]() for node in nodes if first.get(node, node) is node}
    for node in nodes:
        waits[first.get(node, node)] |= {first.get(other, other) for other in links[node]}
    if any(leader in needed for leader, needed in waits.items()):
        return None
    needed_by: dict[fx.Node, list[fx.Node]] = {}
    for leader, needed in waits.items():
        for other in needed:
            needed_by.setdefault(other, []).append(leader)
    left = {leader: len(needed) for leader, needed in waits.items()}
    ready = [rank[leader] for leader, count in left.items() if count == 0]
    heapq.heapify(ready)
    order: list[Place] = []
    while ready:
        leader = nodes[heapq.heappop(ready)]
        order.append(members.get(leader, (leader,)))
        for other in needed_by.get(leader, ()):
            left[other] -= 1
            if left[other] == 0:
                heapq.heappush(ready, rank[other])
    return order if len(order) == len(waits) else None
