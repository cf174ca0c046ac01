"""Side by side: the original and the compressed network run node by node on the calibration images.

Whatever reads or carries cut channels is compared with the original there and then; a sequential method gives it new
weights the moment its inputs are known. One pass over the images, no gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from core.channels import Channels
from core.decompositions.base import Decomposition
from core.errors import ModelError, first_line
from core.graph import Layer, Step
from core.graph.trace import GraphRunner, as_inputs, twin
from core.moments import Moments
from core.surgery import assign, kept_positions, parameter
from core.windows import Window, patches, window_of

SUMS = ("add", "add_", "iadd")


@dataclass(frozen=True)
class Refit:
    """What became of a cut network on the calibration images.

    Attributes:
        model: the network, with new weights if the method is sequential.
        lost: per layer that reads or carries cut channels, the share of its outputs' variance lost (0 = none).
        notes: per layer whose weights a sequential method left as they were, why.
    """

    model: nn.Module
    lost: dict[str, float]
    notes: dict[str, str]


def refit(model: nn.Module, channels: Channels, gone: Tensor, method: Decomposition, calibration: Any) -> Refit:
    """Compare a cut network with the original on calibration images; refit it if the method is sequential.

    A refitted network whose outputs on these images are further from the original's than they were before is not
    returned: the one before is, and says so.

    Args:
        model: the network after the cut; the weights in it may be replaced.
        channels: of the original network.
        gone: channel numbers that were removed.
        method: if it is sequential, its ``solve`` gives each layer that reads or carries cut channels new weights.
        calibration: unlabelled inputs (N, …), a tuple of them for a network with several inputs.
    """
    inputs = as_inputs(calibration)
    before = twin(model) if method.sequential else model  # parameters are replaced, never written to
    runner = SideBySide(model, channels, gone, method)
    alone = len(inputs) == 1 and inputs[0].is_floating_point()
    stretch = method.sequential and alone and runner.one_row_per_image()
    try:
        originals = runner.run(*(method.stretch(x) if stretch else x for x in inputs))
        if not method.sequential:
            return Refit(model, runner.lost, {})
        outputs = runner.outputs
        if stretch:  # the network may depend on how many images it sees at a time
            originals, outputs = twin(channels.graph.model)(*inputs), twin(model)(*inputs)
        error, was = squared_errors(originals, outputs), squared_errors(originals, twin(before)(*inputs))
        if all(now <= then < math.inf for now, then in zip(error, was, strict=True)):
            return Refit(model, runner.lost, runner.notes)
        plain = SideBySide(before, channels, gone, Decomposition())
        plain.run(*inputs)
    except (RuntimeError, TypeError) as error:
        return _without(before, channels, inputs, first_line(error))
    note = "refitting took the outputs further from the original's: the weights stay as merged"
    return Refit(before, plain.lost, dict.fromkeys(plain.lost, note))


def _without(model: nn.Module, channels: Channels, inputs: tuple[Any, ...], reason: str) -> Refit:
    """Nothing new, where two networks could not be run side by side and the images are not to blame.

    Raises:
        ModelError: the original does not run on the images either.
    """
    try:
        twin(channels.graph.model)(*inputs)
    except Exception as error:
        raise ModelError(
            f"the network does not run on calibration images of shape {tuple(inputs[0].shape)}: {first_line(error)}"
        ) from None
    readers = dict.fromkeys(name for s in channels.sets for name in s.consumers)
    return Refit(model, {}, dict.fromkeys(readers, f"not refitted, since the graph does not run once cut: {reason}"))


def squared_errors(originals: Any, outputs: Any) -> tuple[float, float]:
    """Summed squared difference of two networks' outputs: of those that are real, and of counts, indices and masks."""
    found = {True: 0.0, False: 0.0}
    for a, b in zip(pytree.tree_leaves(originals), pytree.tree_leaves(outputs), strict=True):
        if isinstance(a, Tensor):
            found[a.is_floating_point()] += float((a.double() - b.double()).square().sum())
    return found[True], found[False]


class SideBySide(GraphRunner):
    """Runs the original; ``compressed`` holds the compressed network's value of every node still needed."""

    def __init__(self, model: nn.Module, channels: Channels, gone: Tensor, method: Decomposition) -> None:
        graph = channels.graph
        super().__init__(graph.traced, twin(graph.model), graph.unbiased)
        self.channels, self.gone, self.method, self.refitted = channels, gone, method, model
        self.model = twin(model)  # runs, so that what the network counts stays as it is
        self.compressed = GraphRunner(graph.traced, self.model, graph.unbiased)
        self.lost: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self.outputs: Any = None
        """What the compressed network returns."""
        layers = [step.layer for step in graph.steps.values() if step.layer is not None]
        weights = [layer.weight for layer in layers]
        self.once = {layer.name for layer in layers if weights.count(layer.weight) == 1}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run both networks on the calibration images."""
        graph: Any = self.module.graph
        self.compressed.args_iter = iter(graph.process_inputs(*args))
        self.compressed.env = {}
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node in both networks."""
        value = super().run_node(n)
        if n.op == "output":
            self.outputs = self.compressed.run_node(n)
            return value
        step = self.channels.graph.steps.get(n)
        layer = step.layer if step is not None and self._reads_cut(step) else None
        if step is not None and layer is not None and self.method.sequential:
            self._try_refit(step, layer, value)
        self.compressed.env[n] = self.compressed.run_node(n)
        if layer is not None:
            self.lost[layer.name] = share_lost(self._kept(n, value), self.compressed.env[n])
        for dead in self.user_to_last_uses.get(n, []):
            self.compressed.env.pop(dead, None)
        return value

    def one_row_per_image(self) -> bool:
        """Whether all layers to refit are linear layers on (N, in): calibration images are few for them."""
        steps = [s for s in self.channels.graph.steps.values() if self._reads_cut(s)]
        axes = self.channels.graph.channel_axis
        return all(s.layer is not None and s.layer.linear and axes[s.node] == 1 for s in steps)

    def _reads_cut(self, step: Step) -> bool:
        if step.layer is None:
            return False
        axis = 0 if step.kind == "depthwise" else step.layer.read_axis
        atoms = self.channels.graph.atoms.axes.get((step.layer.weight, axis))
        return atoms is not None and len(kept_positions(self.channels, atoms, self.gone)) < len(atoms)

    def _try_refit(self, step: Step, layer: Layer, original: Tensor) -> None:
        """Give a layer new weights, or note why it keeps the merged ones."""
        window = window_of(step, layer, self)
        if layer.name not in self.once:
            self.notes[layer.name] = f"{layer.name} is used several times: it keeps the merged weights"
        elif isinstance(window, str):
            self.notes[layer.name] = f"{layer.name} {window}: it keeps the merged weights"
        else:
            self._refit(step, layer, window, original)
            for node in step.node.all_input_nodes:  # an exported graph fetched the weights before they changed
                if node.op == "get_attr":
                    self.compressed.env[node] = self.compressed.run_node(node)

    def _refit(self, step: Step, layer: Layer, window: Window, original: Tensor) -> None:
        weight = parameter(self.model, layer.weight)
        assert weight is not None
        bias, sign = self.channels.constant_of(layer)
        fixed = parameter(self.model, layer.bias) if layer.bias and not bias else None
        target = self._kept(step.node, original)
        target = target + self._lost_by_skip(step.node, target.shape)
        if fixed is not None:  # a bias that belongs to others too stays what it is
            target = target - (fixed if not window.kernel_size else fixed.view(-1, *[1] * len(window.kernel_size)))
        groups = len(weight) if step.kind == "depthwise" else layer.groups
        moments = Moments(centred=bool(bias))
        for rows, outputs in patches(window, self.compressed.env[step.inputs[0]], target):
            moments.add(by_group(rows, groups), by_group(outputs, groups))
        v, b = self.method.solve(moments, weight.reshape(groups, weight.shape[0] // groups, -1))
        for model in (self.model, self.refitted):
            assign(model, layer.weight, v.reshape(weight.shape).to(weight.dtype))
            assign(model, bias, self._level(bias, sign, b.flatten()).to(weight.dtype))

    def _level(self, name: str, sign: int, constant: Tensor) -> Tensor:
        """What the bias ``name`` (or for sign −1 the running mean) has to be, for a layer to add ``constant``."""
        if sign > 0:
            return constant
        atoms, mean = self.channels.graph.atoms.axes[self.channels.graph.canonical(name), 0], parameter(self.root, name)
        assert mean is not None
        return mean[kept_positions(self.channels, atoms, self.gone).to(mean.device)] - constant

    def _kept(self, node: fx.Node, value: Tensor) -> Tensor:
        """The original's value at a node, on the channels that the compressed network has there."""
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
                scale = scale * self._norm_scale(step, self.env_axes(node))
                at = user
                continue
            if step is None or step.kind != "add" or step.op not in SUMS or step.options["alpha"] != 1:
                return 0.0
            other = next((s for s in step.inputs if s is not at), None)
            if other is None or other not in self.compressed.env:
                return 0.0
            lost: Tensor = self._kept(other, self.env[other]) - self.compressed.env[other]
            return lost / scale if lost.shape == shape else 0.0
        return 0.0

    def env_axes(self, node: fx.Node) -> int:
        """Number of axes of a layer's output: that of its input."""
        value: Tensor = self.env[self.channels.graph.steps[node].inputs[0]]
        return value.dim()

    def _norm_scale(self, step: Step, axes: int) -> Tensor:
        names = step.parameters
        gamma, var = parameter(self.model, names["weight"]), parameter(self.model, names["running_var"])
        assert gamma is not None
        assert var is not None
        a = gamma / torch.sqrt(var + step.options["eps"])
        a = torch.where(a.abs() > 1e-6, a, torch.ones_like(a))
        return a.view(1, -1, *[1] * (axes - 2))


def share_lost(original: Tensor, compressed: Tensor) -> float:
    """‖original − compressed‖² over the variance of the original, summed over everything."""
    original, compressed = original.float(), compressed.float()
    spread = (original - original.mean(0, keepdim=True)).square().sum()
    return float((original - compressed).square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny))


def by_group(rows: Tensor, groups: int) -> Tensor:
    """Rows (m, groups·c) as (groups, m, c)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1)


def recalibrate(model: nn.Module, calibration: Any) -> None:
    """Reset every batch norm's running statistics to those of the calibration images (N, …), in place."""
    inputs, run = as_inputs(calibration), twin(model)
    names = [name for name, m in run.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in map(run.get_submodule, names):
        assert isinstance(norm, _BatchNorm)
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over batches
        norm.train()
    with torch.no_grad():
        for start in range(0, len(inputs[0]), 128):
            run(*(x[start : start + 128] for x in inputs))
    for name in names:
        for key, value in run.get_submodule(name).named_buffers(recurse=False):
            parameter(model, f"{name}.{key}").copy_(value)  # type: ignore[union-attr]
