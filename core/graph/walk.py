"""A walk through a traced network, and what the rules use to write down what they know of its channels.

A label tensor (see `core.graph.labels`) holds atoms (see `core.graph.atoms`). Operations that only move elements are
run on the labels themselves, so flatten, permute, concat or a window partition need no rule of their own; operations
that compute are told by `core.graph.rules` what they do to channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from core.graph.atoms import NONE, Atoms
from core.graph.labels import carries, tensors_in
from core.graph.nodes import Layer, Step, StepKind
from core.graph.trace import GraphRunner


class Walk(GraphRunner):
    """Runs the graph on real values and keeps what is known of their channels; `core.graph.labeller` labels them.

    Attributes:
        atoms: of every axis seen, with what ties and freezes them.
        labels: node -> the labels of its value.
        steps: node -> what it does to channels, where a rule has said so.
        layers: by name, in the order of the graph.
        profiles: node -> atoms along its value's channel axis.
        channel_axis: node -> that axis; -1 where labels vary along several.
        opaque: layer that no rule could use -> reason.
        declared: nodes and parameters whose part in the node at hand its rule has described.
        shapes: node whose value is a whole shape -> the tensor it is the shape of.
        counts: node whose value depends on a channel count -> the atoms counted.
        unbiased: see `GraphRunner`; filled while the graph is walked.
        uses: parameter -> what it is used as.
        aliases: parameter name -> the first name of the same tensor.
        held: names of all parameters and buffers.
    """

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
        self.shapes: dict[fx.Node, fx.Node] = {}
        self.counts: dict[fx.Node, Tensor] = {}
        self.unbiased: dict[fx.Node, str] = {}
        self.uses: dict[str, set[str]] = {}
        first_names: dict[int, str] = {}
        self.aliases = {
            name: first_names.setdefault(id(p), name) for name, p in root.named_parameters(remove_duplicate=False)
        }
        self.held = {*self.aliases, *(name for name, _ in root.named_buffers(remove_duplicate=False))}

    def of(self, argument: Any) -> Any:
        """The labels behind a node argument: nodes become their labels, everything else stays."""
        return map_arg(argument, lambda node: self.labels[node])

    def value(self, argument: Any) -> Any:
        """The value behind a node argument."""
        return map_arg(argument, lambda node: self.env[node])

    def canonical(self, parameter: str) -> str:
        """The first name of a parameter that several modules share."""
        return self.aliases.get(parameter, parameter)

    def step(self, node: fx.Node, kind: StepKind, inputs: tuple[fx.Node, ...], op: str = "", **rest: Any) -> None:
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
