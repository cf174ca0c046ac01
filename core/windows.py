"""What a layer reads for one output: windows of a convolution as rows of a matrix, so that it can be solved for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from core.graph import Layer, Step
from core.graph.trace import GraphRunner

CHUNK = 16_000_000
"""Numbers in one chunk of patches: 64 MB of float32."""


@dataclass(frozen=True)
class Window:
    """What a convolution reads for one output; a linear layer reads one row.

    Attributes:
        kernel_size: of each axis; empty for a linear layer.
        stride: a number, or one for each axis.
        padding: likewise, or "same" or "valid".
        dilation: a number, or one for each axis.
    """

    kernel_size: tuple[int, ...] = ()
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1


def window_of(step: Step, layer: Layer, run: GraphRunner) -> Window | str:
    """The window of a layer as the graph calls it, module or function; or in words why it cannot be refitted."""
    if layer.linear:
        return Window()
    if layer.transposed:
        return "is a transposed convolution"
    node = step.node
    weight = run.fetch_attr(layer.weight)
    if node.op == "call_module":
        module: Any = run.submodules[str(node.target)]
        if module.padding_mode != "zeros":
            return f"pads with mode {module.padding_mode!r}"
        return Window(tuple(module.kernel_size), module.stride, module.padding, module.dilation)
    given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation"), node.args, strict=False))
    given |= node.kwargs
    if any(isinstance(given.get(name), fx.Node) for name in ("stride", "padding", "dilation")):
        return "computes how it is laid over the image"
    chosen = {name: _plain(given.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))}
    return Window(tuple(weight.shape[2:]), **chosen)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def patches(window: Window, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield chunks (rows (m, in·k…), outputs (m, out)): what enters a layer at each place, and what should come out."""
    if not window.kernel_size:
        rows, outputs = x.flatten(0, -2), target.flatten(0, -2)
        step = max(1, CHUNK // max(1, rows.shape[1]))
        yield from zip(torch.split(rows, step), torch.split(outputs, step), strict=True)
        return
    size = target[0, 0].numel() * x.shape[1] * math.prod(window.kernel_size)
    step = max(1, CHUNK // size)
    for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
        columns = unfold(window, images)  # (m, in·k…, positions)
        yield columns.transpose(1, 2).flatten(0, 1), wanted.flatten(2).transpose(1, 2).flatten(0, 1)


def unfold(window: Any, images: Tensor) -> Tensor:
    """Patches (N, in·k…, positions) that a convolution (a `Window` or the module) of any dimension reads."""
    size = tuple(window.kernel_size)
    if len(size) == 2 and not isinstance(window.padding, str):
        return F.unfold(images, size, window.dilation, window.padding, window.stride)
    taps, channels = math.prod(size), images.shape[1]
    one_hot = torch.eye(taps, dtype=images.dtype, device=images.device).view(taps, 1, *size)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(size)]
    repeated = one_hot.repeat(channels, *[1] * (one_hot.dim() - 1))
    return convolve(images, repeated, None, window.stride, window.padding, window.dilation, channels).flatten(2)
