"""The original and the compressed network, run node by node on the same images, from one layer to refit to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from core.channels import Channels
from core.graph import Step
from core.graph.trace import GraphRunner
from core.readers import Place
from core.surgery import kept_positions, parameter

SUMS = ("add", "add_", "iadd")
SILENT = ("dropout", "identity")
"""What a layer's output passes unchanged before the sum. NOTE: only in networks with attention in parts; in others it
would change what trials that are on users' disks have found."""


@dataclass
class Loss:
    """How much of what a layer gives has been lost, added up over images; all images count as one batch.

    Attributes:
        count: images.
        mean: of the original's outputs, of one image.
        spread: ‖original − mean‖².
        error: ‖original − compressed‖².
    """

    count: int = 0
    mean: Tensor | float = 0.0
    spread: float = 0.0
    error: float = 0.0

    def add(self, original: Tensor, compressed: Tensor) -> None:
        """Count some images (Chan, Golub & LeVeque 1979)."""
        original, compressed = original.float(), compressed.float()
        mean, new = original.mean(0), len(original)
        away = torch.as_tensor(mean - self.mean).square().sum() if self.count else 0.0
        self.spread += float((original - mean).square().sum() + away * (self.count * new / (self.count + new)))
        self.mean = (self.mean * self.count + mean * new) / (self.count + new)
        self.error += float((original - compressed).square().sum())
        self.count += new


def shares_lost(losses: Iterable[Loss]) -> float:
    """The share of the variance that is lost, over all calls of a layer (0 = none)."""
    losses = list(losses)
    tiny = torch.finfo(torch.float32).tiny
    return sum(one.error for one in losses) / max(sum(one.spread for one in losses), tiny)


@dataclass(frozen=True)
class Pair:
    """An original network and what is left of it.

    Attributes:
        channels: of the original network.
        gone: channel numbers that were removed.
        original: a copy of the original to run.
        compressed: a copy of the cut network to run; its parameters are replaced as layers are refitted.
        order: the graph's nodes, in the order to run them in; those of one place together.
        queries: layer that writes an attention's queries -> Z (n, k), by which those of the cut network are mixtures of
            the original's.
        losses: at each layer that reads or carries cut channels.
    """

    channels: Channels
    gone: Tensor
    original: nn.Module
    compressed: nn.Module
    order: Sequence[Place]
    queries: Mapping[str, Tensor]
    losses: dict[fx.Node, Loss] = field(default_factory=dict)

    def lost(self) -> dict[str, float]:
        """Per layer, the share of its outputs' variance lost."""
        by_name: dict[str, list[Loss]] = {}
        for node, loss in self.losses.items():
            layer = self.channels.graph.steps[node].layer
            assert layer is not None
            by_name.setdefault(layer.name, []).append(loss)
        return {name: shares_lost(found) for name, found in by_name.items()}


class SideBySide(GraphRunner):
    """Runs the original on some images; ``compressed`` holds the compressed network's value of every node still needed.

    Args:
        pair: the two networks.
        inputs: the images, a tuple of as many rows for a network with several inputs.
    """

    def __init__(self, pair: Pair, inputs: tuple[Any, ...]) -> None:
        graph = pair.channels.graph
        super().__init__(graph.traced, pair.original, graph.unbiased)
        self.pair, self.channels, self.gone, self.inputs = pair, pair.channels, pair.gone, inputs
        self.model = pair.compressed
        self.compressed = GraphRunner(graph.traced, pair.compressed, graph.unbiased)
        self._counted = 0
        self.restart()

    def restart(self) -> None:
        """Forget all values; what is asked for next is computed from the images."""
        self._at = self._ahead = 0
        self._readers = {node: len(node.users) for place in self.pair.order for node in place}
        given: Any = self.module.graph
        for run in (self, self.compressed):
            run.env = {}
            run.args_iter = iter(given.process_inputs(*self.inputs))

    def run_until(self, place: int) -> None:
        """Run both networks up to a place (a number in the pair's order), and the original at it too."""
        while self._at < place:
            self._run_original(self._at)
            self._run_compressed(self._at)
            self._at += 1
        if place < len(self.pair.order):
            self._run_original(place)

    def run_to_the_end(self) -> tuple[Any, Any]:
        """The outputs of the original and of the compressed network."""
        self.run_until(len(self.pair.order))
        (node,) = (n for place in self.pair.order for n in place if n.op == "output")
        return self.env[node], self.compressed.env[node]

    def held(self) -> int:
        """Bytes of the values that are still needed."""
        return bytes_of(self.env) + bytes_of(self.compressed.env)

    def _run_original(self, number: int) -> None:
        if number < self._ahead:
            return
        for node in self.pair.order[number]:
            self.env[node] = self.run_node(node)
        self._ahead = number + 1

    def _run_compressed(self, number: int) -> None:
        place, env = self.pair.order[number], self.compressed.env
        for node in place:
            for source in node.all_input_nodes:
                if source.op == "get_attr":  # an exported graph fetched the weights before they changed
                    env[source] = self.compressed.run_node(source)
            env[node] = self.compressed.run_node(node)
            if number >= self._counted and reads_cut(self.channels, self.gone, self.channels.graph.steps.get(node)):
                self.pair.losses.setdefault(node, Loss()).add(self.kept(node, self.env[node]), env[node])
        self._counted = max(self._counted, number + 1)
        for node in place:
            for source in (node, *node.all_input_nodes):
                self._readers[source] -= source is not node
                if self._readers[source] == 0 and source.op != "output":
                    self.env.pop(source, None)
                    env.pop(source, None)

    def target(self, step: Step) -> Tensor:
        """What a layer should give: the original's outputs, and what the other summand of a residual sum has lost."""
        wanted = self.kept(step.node, self.env[step.node])
        return wanted + self._lost_by_skip(step.node, wanted.shape)

    def kept(self, node: fx.Node, value: Tensor) -> Tensor:
        """The original's value at a node, on the channels that the compressed network has; queries mixed as its are."""
        step = self.channels.graph.steps.get(node)
        if step is not None and step.mixer is not None and step.mixer.name in self.pair.queries:
            return value @ self.pair.queries[step.mixer.name].to(value)
        axis = self.channels.graph.channel_axis[node]
        kept = kept_positions(self.channels, self.channels.graph.profiles[node], self.gone)
        return value if axis < 0 else value.index_select(axis, kept.to(value.device))

    def _lost_by_skip(self, node: fx.Node, shape: torch.Size) -> Tensor | float:
        """What the other summand of a residual sum has lost by now, in units of this layer's output of this shape."""
        scale: Tensor | float = 1.0
        at = node
        while len(at.users) == 1:
            user = next(iter(at.users))
            step = self.channels.graph.steps.get(user)
            if step is not None and step.kind == "batch-norm" and len(step.parameters) >= 4:
                scale = scale * self._norm_scale(step, len(shape))
                at = user
                continue
            if step is not None and step.op in SILENT and self.channels.graph.packed:
                at = user
                continue
            if step is None or step.kind != "add" or step.op not in SUMS or step.options["alpha"] != 1:
                return 0.0
            other = next((s for s in step.inputs if s is not at), None)
            if other is None or other not in self.compressed.env:
                return 0.0
            lost: Tensor = self.kept(other, self.env[other]) - self.compressed.env[other]
            return lost / scale if lost.shape == shape else 0.0
        return 0.0

    def _norm_scale(self, step: Step, axes: int) -> Tensor:
        a = gain(self.model, step)
        a = torch.where(a.abs() > 1e-6, a, torch.ones_like(a))
        return a.view(1, -1, *[1] * (axes - 2))


def gain(model: nn.Module, step: Step) -> Tensor:
    """The factor a = γ/√(σ² + ε) of a batch norm with γ, (n,)."""
    gamma, var = (parameter(model, step.parameters[name]) for name in ("weight", "running_var"))
    assert gamma is not None
    assert var is not None
    return gamma / torch.sqrt(var + step.options["eps"])


class Weigher(GraphRunner):
    """Runs a network and notes how many bytes its values take at most."""

    most = 0

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and weigh all values that are still needed."""
        value = super().run_node(n)
        self.most = max(self.most, bytes_of({**self.env, n: value}))
        return value


def bytes_of(values: Mapping[fx.Node, Any]) -> int:
    """Bytes of the tensors among nodes' values, each storage once; images and parameters are there anyway."""
    sizes: dict[int, int] = {}
    for node, value in values.items():
        for tensor in pytree.tree_leaves(value) if node.op not in ("placeholder", "get_attr", "output") else ():
            if isinstance(tensor, Tensor):
                key = tensor.untyped_storage().data_ptr()
                sizes[key] = max(sizes.get(key, 0), tensor.numel() * tensor.element_size())
    return sum(sizes.values())


def reads_cut(channels: Channels, gone: Tensor, step: Step | None) -> bool:
    """Whether a step is a layer that reads or carries channels that were cut."""
    if step is None or step.layer is None:
        return False
    axis = 0 if step.kind == "depthwise" else step.layer.read_axis
    atoms = channels.graph.atoms.axes.get((step.layer.weight, axis))
    return atoms is not None and len(kept_positions(channels, atoms, gone)) < len(atoms)
