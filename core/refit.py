"""Side by side: the original and the compressed network run node by node on the calibration images.

Whatever reads or carries cut channels is compared with the original there and then; a sequential method gives it new
weights the moment its inputs are known. One pass over the images, no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """Compare the cut ``model`` with the original on calibration images; refit it in place if the method is sequential.

    Args:
        model: the network after the cut.
        channels: of the original network.
        gone: channel numbers that were removed.
        method: if it is sequential, its ``solve`` gives each layer that reads or carries cut channels new weights.
        calibration: unlabelled inputs (N, …).

    Returns:
        Per layer that reads or carries cut channels, the share of its outputs' variance that is lost (0 = none).
    """
    runner = SideBySide(model, channels, gone, method)
    stretch = method.sequential and runner.one_row_per_image()
    with torch.no_grad():
        try:
            runner.run(method.stretch(calibration) if stretch else calibration)
        except (RuntimeError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            shape = tuple(calibration.shape)
            raise ModelError(f"the network does not run on calibration images of shape {shape}: {reason}") from None
    return runner.lost


class SideBySide(GraphRunner):
    """Runs the original; ``compressed`` holds the compressed network's value of every node still needed."""

    def __init__(self, model: nn.Module, channels: Channels, gone: Tensor, method: Decomposition) -> None:
        super().__init__(channels.graph.traced, channels.graph.model)
        self.channels, self.gone, self.method, self.model = channels, gone, method, model
        self.compressed = GraphRunner(channels.graph.traced, model)
        self.lost: dict[str, float] = {}
        layers = [step.layer for step in channels.graph.steps.values() if step.layer is not None]
        weights = [layer.weight for layer in layers]
        self.once = {layer.name for layer in layers if weights.count(layer.weight) == 1}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run both networks on the calibration images."""
        self.compressed.args_iter = iter(args)
        self.compressed.env = {}
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node in both networks."""
        value = super().run_node(n)
        if n.op == "output":
            return value
        step = self.channels.graph.steps.get(n)
        module = self._module(step)
        concerned = step is not None and self._reads_cut(step)
        if step is not None and concerned and module is not None and self._can_refit(step, module):
            self._refit(step, module, value)
        if step is not None and module is not None:  # an exported graph fetched the weights before they changed
            self.compressed.env[n] = module(self.compressed.env[step.inputs[0]])
        else:
            self.compressed.env[n] = self.compressed.run_node(n)
        if step is not None and step.layer is not None and concerned:
            self.lost[step.layer.name] = share_lost(self._kept(n, value), self.compressed.env[n])
        for dead in self.user_to_last_uses.get(n, []):
            self.compressed.env.pop(dead, None)
        return value

    def one_row_per_image(self) -> bool:
        """Whether all layers to refit are linear layers on (N, in): calibration images are few for them."""
        steps = [s for s in self.channels.graph.steps.values() if self._reads_cut(s)]
        axes = self.channels.graph.channel_axis
        return all(s.layer is not None and s.layer.kind == "linear" and axes[s.node] == 1 for s in steps)

    def _reads_cut(self, step: Step) -> bool:
        if step.layer is None:
            return False
        axis = 0 if step.kind == "depthwise" else step.layer.read_axis
        atoms = self.channels.graph.atoms.axes.get((step.layer.weight, axis))
        return atoms is not None and len(kept_positions(self.channels, atoms, self.gone)) < len(atoms)

    def _module(self, step: Step | None) -> nn.Module | None:
        """The compressed network's module for a layer; None where the layer is only a function of parameters."""
        name = step.layer.name if step is not None and step.layer is not None else ""
        module = dict(self.model.named_modules()).get(name) if name else None
        return module if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) else None

    def _can_refit(self, step: Step, module: nn.Module) -> bool:
        layer = step.layer
        if not self.method.sequential or layer is None or layer.name not in self.once or layer.kind == "conv-transpose":
            return False
        return isinstance(module, nn.Linear) or getattr(module, "padding_mode", "") == "zeros"

    def _refit(self, step: Step, module: nn.Module, original: Tensor) -> None:
        layer = step.layer
        assert layer is not None
        weight = parameter(self.model, layer.weight)
        assert weight is not None
        target = self._kept(step.node, original) + self._lost_by_skip(step.node)
        groups = int(getattr(module, "groups", 1))
        moments = Moments()
        for rows, outputs in patches(module, layer, self.compressed.env[step.inputs[0]], target):
            moments.add(by_group(rows, groups), by_group(outputs, groups))
        v, b = self.method.solve(moments, weight.reshape(groups, weight.shape[0] // groups, -1))
        assign(self.model, layer.weight, v.reshape(weight.shape).to(weight.dtype))
        assign(self.model, layer.bias, b.flatten().to(weight.dtype))

    def _kept(self, node: fx.Node, value: Tensor) -> Tensor:
        """The original's value at a node, on the channels that the compressed network has there."""
        axis = self.channels.graph.channel_axis[node]
        kept = kept_positions(self.channels, self.channels.graph.profiles[node], self.gone)
        return value if axis < 0 else value.index_select(axis, kept.to(value.device))

    def _lost_by_skip(self, node: fx.Node) -> Tensor | float:
        """What the other summand of a residual sum has lost by now, in units of this layer's output."""
        scale: Tensor | float = 1.0
        at = node
        while len(at.users) == 1:
            user = next(iter(at.users))
            step = self.channels.graph.steps.get(user)
            if step is not None and step.kind == "batch-norm" and len(step.parameters) >= 4:
                scale = scale * self._norm_scale(step, self.env_axes(node))
                at = user
                continue
            if step is None or step.kind != "add" or step.op.endswith("sub"):
                return 0.0
            other = next((s for s in step.inputs if s is not at), None)
            if other is None or other not in self.compressed.env:
                return 0.0
            lost: Tensor = self._kept(other, self.env[other]) - self.compressed.env[other]
            return lost / scale
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
    spread = (original - original.mean(0, keepdim=True)).square().sum()
    return float((original - compressed).square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny))


def by_group(rows: Tensor, groups: int) -> Tensor:
    """Rows (m, groups·c) as (groups, m, c)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1)


def patches(module: nn.Module, layer: Layer, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield chunks (rows (m, in·k…), outputs (m, out)): what enters a layer at each place, and what should come out."""
    if layer.kind == "linear":
        rows, outputs = x.flatten(0, -2), target.flatten(0, -2)
        step = max(1, CHUNK // max(1, rows.shape[1]))
        yield from zip(torch.split(rows, step), torch.split(outputs, step), strict=True)
        return
    taps = parameter(module, "weight")
    assert taps is not None
    size = target[0, 0].numel() * x.shape[1] * taps[0, 0].numel()
    step = max(1, CHUNK // size)
    for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
        columns = unfold(module, images)  # (m, in·k…, positions)
        yield columns.transpose(1, 2).flatten(0, 1), wanted.flatten(2).transpose(1, 2).flatten(0, 1)


def unfold(module: Any, images: Tensor) -> Tensor:
    """Patches (N, in·k…, positions) that a convolution of any dimension reads."""
    if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
        return F.unfold(images, module.kernel_size, module.dilation, module.padding, module.stride)
    taps = module.weight[0, 0].numel()
    one_hot = torch.eye(taps, dtype=images.dtype, device=images.device).view(taps, 1, *module.kernel_size)
    channels = images.shape[1]
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(module.kernel_size)]
    repeated = one_hot.repeat(channels, *[1] * (one_hot.dim() - 1))
    found = convolve(images, repeated, None, module.stride, module.padding, module.dilation, channels)
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
