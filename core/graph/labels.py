"""Walks a traced network once and writes down, for every tensor, which channel each of its elements belongs to.

A label tensor has the shape of the value it describes and holds atoms (see `core.graph.atoms`). Operations that only
move elements are run on the labels themselves, so flatten, permute, concat or a window partition need no rule of their
own; operations that compute are told by `core.graph.rules` what they do to channels. Labels are mostly expanded views
(stride 0), so they cost next to no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from core.graph.atoms import NONE, Atoms
from core.graph.trace import GraphRunner


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: it reads channels through one axis of its weight and writes through another.

    ``kind`` is ``conv``, ``linear`` or ``conv-transpose``; weight is (out, in, …), for ``conv-transpose`` (in, out, …).
    ``weight`` and ``bias`` are parameter names; a module without bias still names the one it would have, and a function
    of parameters that takes none has the name "".
    """

    name: str
    kind: str
    weight: str
    bias: str
    groups: int = 1
    stride: int = 1
    """Of a ``conv-transpose``, the product over its axes."""

    @property
    def write_axis(self) -> int:
        """Axis of the weight that holds the out-channels."""
        return 1 if self.kind == "conv-transpose" else 0

    @property
    def read_axis(self) -> int:
        """Axis of the weight that holds the in-channels (of one group)."""
        return 1 - self.write_axis


@dataclass(frozen=True)
class Step:
    """What one graph node does to the channels that pass through it.

    ``kind``: ``layer`` (reads channels, writes others), or channel-wise: ``batch-norm``, ``norm``, ``depthwise``,
    ``activation``, ``prelu``, ``pool``, ``move``, ``concat``, ``add``, ``mul``, ``parameter-add``, ``parameter-mul``.
    """

    node: fx.Node
    kind: str
    inputs: tuple[fx.Node, ...]
    op: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    layer: Layer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Labeller(GraphRunner):
    """Runs the graph on real values and, beside each value, keeps its labels."""

    def __init__(self, traced: fx.GraphModule, root: nn.Module, atoms: Atoms | None = None) -> None:
        super().__init__(traced, root)
        self.atoms = Atoms() if atoms is None else atoms
        self.labels: dict[fx.Node, Any] = {}
        self.steps: dict[fx.Node, Step] = {}
        self.layers: dict[str, Layer] = {}
        self.profiles: dict[fx.Node, Tensor] = {}
        self.channel_axis: dict[fx.Node, int] = {}
        self.opaque: dict[str, str] = {}
        self.declared: set[fx.Node | str] = set()
        """Nodes and parameters whose part in the node at hand its rule has described."""
        self.shapes: dict[fx.Node, fx.Node] = {}
        """node whose value is a whole shape -> the tensor it is the shape of."""
        self.counts: dict[fx.Node, Tensor] = {}
        """node whose value depends on a channel count -> the atoms counted."""
        self.unbiased: dict[fx.Node, str] = {}  # see GraphRunner; filled while the graph is walked
        self.uses: dict[str, set[str]] = {}
        """parameter -> what it is used as."""
        first_names: dict[int, str] = {}
        self.aliases = {
            name: first_names.setdefault(id(p), name) for name, p in root.named_parameters(remove_duplicate=False)
        }
        self.held = {*self.aliases, *(name for name, _ in root.named_buffers(remove_duplicate=False))}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and label what it returns."""
        from core.graph.rules import label_node

        value = super().run_node(n)
        labels = label_node(self, n, value)
        self.labels[n] = labels
        if isinstance(labels, Tensor):
            self.channel_axis[n], self.profiles[n] = profile(labels)
        return value

    # --- what rules use ---------------------------------------------------------------------------------------

    def of(self, argument: Any) -> Any:
        """The labels behind a node argument: nodes become their labels, everything else stays."""
        return map_arg(argument, lambda node: self.labels[node])

    def value(self, argument: Any) -> Any:
        """The value behind a node argument."""
        return map_arg(argument, lambda node: self.env[node])

    def canonical(self, parameter: str) -> str:
        """The first name of a parameter that several modules share."""
        return self.aliases.get(parameter, parameter)

    def step(self, node: fx.Node, kind: str, inputs: tuple[fx.Node, ...], op: str = "", **rest: Any) -> None:
        """Write down what a node does, and thereby declare its inputs and parameters as described."""
        step = Step(node, kind, inputs, op, **rest)
        self.steps[node] = step
        self.declare(*inputs, *step.parameters.values())
        data = [str(n.target) for n in inputs if n.op == "get_attr"]
        for name in (*data, *(step.parameters.values() if kind != "parameter" else ())):
            self.uses.setdefault(self.canonical(name), set()).add(kind)
        if step.layer is not None:
            self.declare(step.layer.weight, step.layer.bias)
            self.uses.setdefault(step.layer.bias, set()).add(f"bias beside {step.layer.weight}")

    def declare(self, *what: fx.Node | str) -> None:
        """Say that the part these nodes (or parameters, by name) play in the node at hand is described."""
        self.declared.update(self.canonical(w) if isinstance(w, str) else w for w in what)

    def undeclared(self, node: fx.Node) -> list[fx.Node]:
        """The inputs of a node that carry channels and whose part in it no rule has described."""
        return [n for n in node.all_input_nodes if not self._is_described(n)]

    def _is_described(self, source: fx.Node) -> bool:
        name = str(source.target)
        if source.op != "get_attr" or name not in self.held:
            return source in self.declared or not carries(self.labels.get(source))
        if self.canonical(name) in self.declared:
            return True
        if source in self.declared and source not in self.steps:  # data without channels, as long as it is never cut
            self.freeze_parameter(name, f"{name} is read as data")
        return source in self.declared or self.fetch_attr(name).numel() <= 1

    def axis(self, parameter: str, axis: int, size: int) -> Tensor:
        """Atoms (size,) of one axis of a parameter."""
        return self.atoms.axis(self.canonical(parameter), axis, size)

    def tie_axis(self, parameter: str, axis: int, labels: Tensor) -> None:
        """Let one axis of a parameter follow the channels ``labels`` (size,); where there are none, freeze it."""
        if not parameter or not bool((labels != NONE).any()):
            return
        if self.is_loose(parameter):
            self.atoms.freeze(labels, f"{parameter} lies along these channels and is neither a parameter nor a buffer")
            return
        own = self.axis(parameter, axis, len(labels))
        self.atoms.tie(own, labels)
        self.atoms.freeze(own[labels == NONE], "it is joined with channels that cannot be removed")

    def is_loose(self, name: str) -> bool:
        """Whether a tensor is a constant, a plain attribute or computed by a hook: cutting it would change nothing."""
        try:
            return isinstance(self.fetch_attr(name), Tensor) and name not in self.held
        except AttributeError:
            return False  # a bias that the layer does not have, and may get

    def freeze(self, argument: Any, reason: str) -> None:
        """Freeze every channel in the labels behind an argument."""
        for labels in tensors_in(self.of(argument)):
            self.atoms.freeze(labels, reason)

    def freeze_parameter(self, name: str, reason: str) -> None:
        """Freeze every axis of a parameter: something reads it that no rule describes."""
        if name not in self.held:
            return
        for axis, size in enumerate(self.fetch_attr(name).shape):
            if size > 1:
                self.atoms.freeze(self.axis(name, axis, size), reason)


def tensors_in(labels: Any) -> Iterator[Tensor]:
    """Every label tensor in a nested structure."""
    if isinstance(labels, Tensor):
        yield labels
    elif isinstance(labels, Mapping):
        for item in labels.values():
            yield from tensors_in(item)
    elif isinstance(labels, (tuple, list)):
        for item in labels:
            yield from tensors_in(item)
    elif isinstance(labels, slice):
        yield from tensors_in((labels.start, labels.stop, labels.step))


def carries(labels: Any) -> bool:
    """Whether any element belongs to a channel."""
    return any(bool((found != NONE).any()) for found in tensors_in(labels))


def unlabelled(value: Any) -> Any:
    """Labels for a value that carries no channel: NONE everywhere, in the value's own structure."""
    if isinstance(value, Tensor):
        return torch.zeros((), dtype=torch.int32).expand(value.shape)
    if isinstance(value, Mapping):
        return {key: unlabelled(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(unlabelled(item) for item in value) if type(value) in (tuple, list) else None
    return None


def spread(labels: Tensor, axis: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Expand channel labels (C,) along ``axis`` of a value of shape ``shape``."""
    view = [1] * len(shape)
    view[axis] = len(labels)
    return labels.view(view).expand(shape)


def varying_axes(labels: Tensor) -> list[int]:
    """The axes along which labels change: none for no or one channel, one for an ordinary activation."""
    found = []
    for axis in range(labels.dim()):
        if labels.stride(axis) == 0 or labels.size(axis) <= 1:
            continue
        first = labels.narrow(axis, 0, 1)
        if not torch.equal(labels, first.expand_as(labels)):
            found.append(axis)
    return found


def profile(labels: Tensor) -> tuple[int, Tensor]:
    """Return (channel axis, labels along it); where labels vary along several axes, (-1, all of them)."""
    axes = varying_axes(labels)
    if len(axes) > 1:
        return -1, torch.unique(labels)
    axis = axes[0] if axes else min(1, labels.dim() - 1)
    if labels.dim() == 0:
        return -1, labels.reshape(1)
    index: list[Any] = [0] * labels.dim()
    index[axis] = slice(None)
    if labels.numel() == 0:
        return -1, labels.reshape(-1)
    return axis, labels[tuple(index)].contiguous()
