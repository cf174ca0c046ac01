"""What a layer reads for one output: windows of a convolution as rows of a matrix, so that it can be solved for.

A transposed convolution is an ordinary one with a flipped kernel, over its input with stride − 1 zeros between
neighbours and as much padding as brings its output to its size (Dumoulin & Visin, A guide to convolution arithmetic,
2016): the rows are those of that convolution, their taps turned back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from core.graph import Layer, Step
from core.graph.trace import GraphRunner

CHUNK = 16_000_000
"""Numbers in one chunk of patches: 64 MB of float32."""
FAITHFUL = 1e-2
"""Rows times weight may miss a layer's output by this share of it: half precision needs 3e-3."""


@dataclass(frozen=True)
class Window:
    """What a convolution reads for one output; a linear layer reads one row.

    Attributes:
        kernel_size: of each axis; empty for a linear layer.
        stride: a number, or one for each axis.
        padding: likewise, or "same" or "valid".
        dilation: a number, or one for each axis.
        around: what is padded first, as `torch.nn.functional.pad` takes it.
        mode: of that padding.
        transposed: whether it is a transposed convolution; its output padding follows from its output.
    """

    kernel_size: tuple[int, ...] = ()
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    around: tuple[int, ...] = ()
    mode: str = "constant"
    transposed: bool = False


def window_of(step: Step, layer: Layer, run: GraphRunner) -> Window | str:
    """The window of a layer as the graph calls it, module or function; or in words why it cannot be refitted."""
    if layer.linear:
        return Window()
    node = step.node
    if node.op == "call_module":
        module: Any = run.submodules[str(node.target)]
        window = Window(tuple(module.kernel_size), module.stride, module.padding, module.dilation)
        window = replace(window, transposed=layer.transposed)
        if module.padding_mode == "zeros":
            return window
        return replace(
            window, padding=0, around=tuple(module._reversed_padding_repeated_twice), mode=module.padding_mode
        )
    before = ("input", "weight", "bias", "stride", "padding")
    names = (*before, "output_padding", "groups", "dilation") if layer.transposed else (*before, "dilation")
    given = dict(zip(names, node.args, strict=False))
    given |= node.kwargs
    if any(isinstance(given.get(name), fx.Node) for name in ("stride", "padding", "dilation")):
        return "computes how it is laid over the image"
    chosen = {name: _plain(given.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))}
    size = tuple(run.fetch_attr(layer.weight).shape[2:])
    return Window(size, **chosen, transposed=layer.transposed)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def as_matrix(weight: Tensor, layer: Layer, groups: int) -> Tensor:
    """The weight as (groups, out, in·k…), so that it multiplies the rows of `patches`."""
    if layer.write_axis == 0:
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return split.transpose(1, 2).flatten(2)


def as_weight(matrix: Tensor, layer: Layer, shape: torch.Size) -> Tensor:
    """Inverse of `as_matrix`, for a weight of this shape."""
    if layer.write_axis == 0:
        return matrix.reshape(shape)
    groups = len(matrix)
    return matrix.view(groups, shape[1], shape[0] // groups, *shape[2:]).transpose(1, 2).reshape(shape)


def by_group(rows: Tensor, groups: int) -> Tensor:
    """Rows (m, groups·c) as (groups, m, c)."""
    return rows.view(len(rows), groups, -1).transpose(0, 1)


def is_faithful(window: Window, x: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor) -> bool:
    """Whether rows · weight + bias is what a layer really gives, tried on the first image.

    Args:
        window: of the layer.
        x: what enters it, (N, …).
        weight: as `as_matrix` gives it.
        bias: (out,), if it has one.
        output: what it gives for ``x``.
    """
    groups, constant = len(weight), 0.0 if bias is None else bias.double()
    missed = size = rounding = 0.0
    try:
        for rows, wanted in patches(window, x[:1], output[:1]):
            made = (by_group(rows.double(), groups) @ weight.double().mT).transpose(0, 1).flatten(1)
            moved = wanted.double() - constant
            missed += float((made - moved).square().sum())
            size += float(moved.square().sum())
            rounding += float(wanted.double().square().sum()) * (4 * torch.finfo(output.dtype).eps) ** 2
    except (RuntimeError, ValueError, IndexError):
        return False
    return missed <= FAITHFUL**2 * size + rounding


def patches(window: Window, x: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield chunks (rows (m, in·k…), outputs (m, out)): what enters a layer at each place, and what should come out."""
    if not window.kernel_size:
        rows, outputs = x.flatten(0, -2), target.flatten(0, -2)
        step = max(1, CHUNK // max(1, rows.shape[1]))
        yield from zip(torch.split(rows, step), torch.split(outputs, step), strict=True)
        return
    size = target[0, 0].numel() * x.shape[1] * math.prod(window.kernel_size)
    step = max(1, CHUNK // max(1, size))
    for images, wanted in zip(torch.split(x, step), torch.split(target, step), strict=True):
        columns = _columns(window, images, wanted.shape[2:])  # (m, in·k…, positions)
        yield columns.transpose(1, 2).flatten(0, 1), wanted.flatten(2).transpose(1, 2).flatten(0, 1)


def _columns(window: Window, images: Tensor, output: torch.Size) -> Tensor:
    """Patches (N, in·k…, positions) that any convolution reads for an output of this size."""
    if not window.transposed:
        return unfold(window, F.pad(images, window.around, window.mode) if window.around else images)
    stuffed, dilation = _stuffed(window, images, output)
    columns = unfold(Window(window.kernel_size, dilation=dilation), stuffed)
    taps = columns.view(len(images), images.shape[1], -1, columns.shape[2])
    return taps.flip(2).flatten(1, 2)


def _stuffed(window: Window, images: Tensor, output: torch.Size) -> tuple[Tensor, tuple[int, ...]]:
    """What the ordinary convolution reads in place of a transposed one, and its dilation."""
    axes = len(output)
    stride, padding, dilation = (_each(part, axes) for part in (window.stride, window.padding, window.dilation))
    sizes = [(n - 1) * s + 1 for n, s in zip(images.shape[2:], stride, strict=True)]
    stuffed = images.new_zeros(*images.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *(slice(None, None, s) for s in stride))
    stuffed[places] = images
    around: list[int] = []
    for axis in reversed(range(axes)):
        reach = dilation[axis] * (window.kernel_size[axis] - 1)
        left = reach - padding[axis]
        around += [left, output[axis] + reach - left - sizes[axis]]
    return F.pad(stuffed, around), dilation


def _each(value: Any, axes: int) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return found if len(found) == axes else found * axes


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
