"""Sequential refit: the original and the compressed network run side by side, node by node, and each consumer of cut
channels gets new weights the moment its inputs are known. One pass over the calibration images, no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from core.channels import Channels
from core.decompositions.base import Decomposition
from core.errors import ModelError
from core.graph import Layer, Step
from core.graph.trace import GraphRunner
from core.moments import Moments
from core.surgery import assign, kept_positions, parameter

CHUNK = 16_000_000
"""Numbers in one chunk of patches: 64 MB of float32."""


def refit(
    model: nn.Module, channels: Channels, gone: Tensor, method: Decomposition, calibration: Tensor
) -> dict[str, float]:
    """Refit in place the layers of the cut ``model`` that read cut channels; return each one's share of variance lost.

    Args:
        gone: channel numbers that were removed.
        method: a sequential decomposition; its ``solve`` gives the new weights.
        calibration: unlabelled inputs (N, …).
    """
    runner = _SideBySide(model, channels, gone, method)
    images = method.stretch(calibration) if runner.one_row_per_image() else calibration
    with torch.no_grad():
        try:
            runner.run(images)
        except (RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"the network does not run on calibration images of shape {tuple(calibration.shape)}: {reason}"
            ) from None
    return runner.lost


class _SideBySide(GraphRunner):
    """Runs the original; ``twin`` holds the compressed network's value of every node still needed."""

    def __init__(self, model: nn.Module, channels: Channels, gone: Tensor, method: Decomposition) -> None:
        super().__init__(channels.graph.traced, channels.graph.model)
        self.channels, self.gone, self.method = channels, gone, method
        self.compressed = GraphRunner(channels.graph.traced, model)
        self.model = model
        self.lost: dict[str, float] = {}
        self.uses: dict[str, int] = {}
        for step in channels.graph.steps.values():
            if step.layer is not None:
                self.uses[step.layer.weight] = self.uses.get(step.layer.weight, 0) + 1

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run both networks on the calibration images."""
        self.compressed.args_iter = iter(args)
        self.compressed.env = {}
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node in both networks; refit it first where it reads cut channels."""
        value = super().run_node(n)
        if n.op == "output":
            return value
        step = self.channels.graph.steps.get(n)
        if step is not None and step.layer is not None and self._reads_cut(step):
            self._refit(step, value)
        self.compressed.env[n] = self.compressed.run_node(n)
        for dead in self.user_to_last_uses.get(n, []):
            self.compressed.env.pop(dead, None)
        return value

    def one_row_per_image(self) -> bool:
        """Whether all layers to refit are linear layers on (N, in): calibration images are few for them."""
        steps = [s for s in self.channels.graph.steps.values() if s.layer is not None and self._reads_cut(s)]
        axes = self.channels.graph.channel_axis
        return all(s.layer is not None and s.layer.kind == "linear" and axes[s.node] == 1 for s in steps)

    def _reads_cut(self, step: Step) -> bool:
        layer = step.layer
        assert layer is not None
        if step.kind != "layer" or self.uses[layer.weight] > 1 or layer.groups > 1 or layer.kind == "conv-transpose":
            return False
        if layer.kind == "conv" and getattr(self.root.get_submodule(layer.name), "padding_mode", "zeros") != "zeros":
            return False
        atoms = self.channels.graph.atoms.axes.get((layer.weight, layer.read_axis))
        return atoms is not None and len(kept_positions(self.channels, atoms, self.gone)) < len(atoms)

    def _refit(self, step: Step, original: Tensor) -> None:
        layer = step.layer
        assert layer is not None
        weight = parameter(self.model, layer.weight)
        assert weight is not None
        target = self._kept(step.node, original) + self._lost_by_skip(step.node)
        moments = Moments()
        x = self.compressed.env[step.inputs[0]]
        for rows, outputs in patches(self.model.get_submodule(layer.name), layer, x, target):
            moments.add(rows, outputs)
        v, b = self.method.solve(moments, weight.flatten(1))
        assign(self.model, layer.weight, v.view_as(weight).to(weight.dtype))
        assign(self.model, layer.bias, b.to(weight.dtype))
        self.lost[layer.name] = moments.lost(v)

    def _kept(self, node: fx.Node, value: Tensor) -> Tensor:
        """The original's value at a node, on the channels that the compressed network has there."""
        axis = self.channels.graph.channel_axis[node]
        kept = kept_positions(self.channels, self.channels.graph.profiles[node], self.gone)
        return value.index_select(axis, kept.to(value.device))

    def _lost_by_skip(self, node: fx.Node) -> Tensor | float:
        """What the other summand of a residual sum has lost by now, in units of this layer's output."""
        scale: Tensor | float = 1.0
        at = node
        while len(at.users) == 1:
            user = next(iter(at.users))
            step = self.channels.graph.steps.get(user)
            if step is not None and step.kind == "batch-norm" and len(step.parameters) >= 4:
                scale = scale * self._norm_scale(step)
                at = user
                continue
            if step is None or step.kind != "add":
                return 0.0
            other = next((s for s in step.inputs if s is not at), None)
            if other is None or other not in self.compressed.env:
                return 0.0
            lost: Tensor = self._kept(other, self.env[other]) - self.compressed.env[other]
            return lost / scale
        return 0.0

    def _norm_scale(self, step: Step) -> Tensor:
        names = step.parameters
        gamma, var = parameter(self.model, names["weight"]), parameter(self.model, names["running_var"])
        assert gamma is not None and var is not None
        a = gamma / torch.sqrt(var + step.options["eps"])
        a = torch.where(a.abs() > 1e-6, a, torch.ones_like(a))
        axes: int = self.env[step.inputs[0]].dim() if step.inputs[0] in self.env else 4
        return a.view(1, -1, *[1] * (axes - 2))


def patches(module: nn.Module, layer: Layer, x: Tensor, target: Tensor) -> Any:
    """Yield chunks (rows (m, in·k…), outputs (m, out)): what enters a layer at each position, and what should come out."""
    if layer.kind == "linear":
        rows, outputs = x.flatten(0, -2), target.flatten(0, -2)
        step = max(1, CHUNK // max(1, rows.shape[1]))
        yield from zip(torch.split(rows, step), torch.split(outputs, step), strict=True)
        return
    size = target[0].numel() // target.shape[1] * x.shape[1] * int(torch.tensor(module.kernel_size).prod())
    step = max(1, CHUNK // size)
    for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
        columns = unfold(module, images)  # (m, in·k…, positions)
        yield columns.transpose(1, 2).flatten(0, 1), wanted.flatten(2).transpose(1, 2).flatten(0, 1)


def unfold(module: Any, images: Tensor) -> Tensor:
    """Patches (N, in·k…, positions) that a convolution of any dimension reads."""
    if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
        return F.unfold(images, module.kernel_size, module.dilation, module.padding, module.stride)
    taps = int(torch.tensor(module.kernel_size).prod())
    one_hot = torch.eye(taps, dtype=images.dtype, device=images.device).view(taps, 1, *module.kernel_size)
    channels = images.shape[1]
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(module.kernel_size)]
    found = convolve(images, one_hot.repeat(channels, *[1] * (one_hot.dim() - 1)), None, module.stride,
                     module.padding, module.dilation, channels)  # fmt: skip
    return found.flatten(2)


def recalibrate(model: nn.Module, calibration: Tensor) -> None:
    """Reset every batch norm's running statistics to those of the calibration images (N, …), in place."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over batches
        norm.train()
    with torch.no_grad():
        for images in torch.split(calibration, 128):
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
