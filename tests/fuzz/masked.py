"""The original as if channels had been removed: it runs with NaN wherever something is gone from the cut network.

Nothing here knows of channel sets or of graphs. A number that is in a parameter of the original and not in the cut
network's becomes NaN. Below the level of modules and functions, where torch's own operations are, NaNs spread by
themselves; a product of matrices leaves a term out where both factors are NaN, a norm looks at what is left. If
something is read that should be gone, or the other way round, NaNs arrive at the outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def masked_outputs(original: nn.Module, cut: nn.Module, run: Callable[[nn.Module], Any]) -> Any:
    """What ``run`` gives for the original without the numbers that ``cut`` has not got."""
    model = copy.deepcopy(original)
    left = dict(cut.named_parameters(remove_duplicate=False)) | dict(cut.named_buffers(remove_duplicate=False))
    state = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for name, value in state.items():
        if name in left and left[name].shape != value.shape and value.is_floating_point():
            value.data[~torch.isin(value.detach(), left[name].detach())] = torch.nan
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), RootMeanSquares(), Removed():
            return run(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class RootMeanSquares(TorchFunctionMode):
    """RMS norm, which is no operation of its own further down."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (F.rms_norm, torch.rms_norm):
            return func(*args, **(kwargs or {}))
        return rms_norm(*args, **(kwargs or {}))


def rms_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Over what is left of the last axes."""
    size = torch.Size(normalized_shape).numel()
    flat, left = input.reshape(-1, size), ~input.reshape(-1, size).isnan().any(0)
    y = torch.full_like(flat, torch.nan)
    w = None if weight is None else weight.flatten()[left]
    y[:, left] = F.rms_norm(flat[:, left], (int(left.sum()),), w, eps)
    return y.view(input.shape)


class Removed(TorchDispatchMode):
    """Operations that know of removed channels."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func.overloadpacket)
        if rule is not None:
            return rule(func, *args, **kwargs)
        out = func(*args, **kwargs)
        if func.overloadpacket in SWALLOWING and out.shape == args[0].shape:
            out.masked_fill_(args[0].isnan(), torch.nan)
        return out


SWALLOWING = {
    aten.hardtanh,
    aten.hardswish,
    aten.hardsigmoid,
    aten.clamp,
    aten.clamp_min,
    aten.clamp_max,
    aten.threshold,
}
"""Operations of one tensor that give a number for NaN on some machines."""


def product(func: Any, a: Tensor, b: Tensor) -> Tensor:
    """a (…, n, k) times b (…, k, m), over every k but those that are NaN in both.

    One of them must be NaN in all its rows (columns), the other in some, as where a removed channel was padded. Rows of
    ``a`` and columns of ``b`` that are all NaN say nothing of k: they are removed themselves.
    """
    x, y = a.isnan(), b.isnan()
    rows, columns = ~x.all(-1, keepdim=True), ~y.all(-2, keepdim=True)
    some, every = ((x & rows).any(-2), (y & columns).any(-1)), ((x | ~rows).all(-2), (y | ~columns).all(-1))
    gone = some[0] & some[1] & (every[0] | every[1])
    return torch.matmul(a.masked_fill(gone.unsqueeze(-2), 0), b.masked_fill(gone.unsqueeze(-1), 0))


def product_and_sum(func: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * bias + alpha * product(func, a, b)


def matrix_and_vector(func: Any, a: Tensor, b: Tensor) -> Tensor:
    return product(func, a, b.unsqueeze(1)).squeeze(1)


def convolution(
    func: Any, x: Tensor, w: Tensor, b: Any, stride: Any, pad: Any, dilation: Any, up: bool, more: Any, groups: int
) -> Tensor:
    """Without the in-channels that are NaN in both; an out-channel that is all NaN is NaN everywhere."""
    parts = w.unflatten(0, (groups, -1))
    parts = parts if up else parts.transpose(1, 2)  # (group, in, out, …)
    dead = parts.transpose(1, 2).flatten(0, 1).flatten(1).isnan().all(1)
    by_input = parts.flatten(0, 1).clone()
    if up or w.shape[1] > 1:  # else depthwise: a filter goes with its channel
        gone = x.transpose(0, 1).flatten(1).isnan().any(1) & by_input.flatten(1).isnan().all(1)
        x = x.clone()
        x[:, gone], by_input[gone] = 0, 0
    parts = by_input.unflatten(0, (groups, -1))
    w = (parts if up else parts.transpose(1, 2)).flatten(0, 1)
    y: Tensor = func(x, w, b, stride, pad, dilation, up, more, groups)
    y[:, dead] = torch.nan
    return y


def layer_norm(func: Any, x: Tensor, shape: Any, w: Any, b: Any, eps: float) -> Any:
    """Over what is left."""
    flat = x.flatten(x.dim() - len(shape)).flatten(0, -2) if x.dim() > len(shape) else x.flatten()[None]
    left = ~flat.isnan().any(0)
    if bool(left.all()):
        return func(x, shape, w, b, eps)
    some = [None if value is None else value.flatten()[left] for value in (w, b)]
    y = torch.full_like(flat, torch.nan)
    y[:, left] = F.layer_norm(flat[:, left], (int(left.sum()),), some[0], some[1], eps)
    return y.view(x.shape), x.new_zeros(()), x.new_zeros(())


def group_norm(func: Any, x: Tensor, w: Any, b: Any, n: int, c: int, places: int, groups: int, eps: float) -> Any:
    """Over what is left of each group."""
    gone = x.transpose(0, 1).flatten(1).isnan().any(1)
    if not bool(gone.any()):
        return func(x, w, b, n, c, places, groups, eps)
    y = torch.full_like(x, torch.nan)
    for own in torch.arange(c, device=x.device).split(c // groups):
        left = own[~gone[own]]
        if len(left):
            some = [None if value is None else value[left] for value in (w, b)]
            y[:, left] = F.group_norm(x[:, left], 1, some[0], some[1], eps)
    return y, x.new_zeros(()), x.new_zeros(())


RULES: dict[Any, Callable[..., Any]] = {
    aten.mm: product,
    aten.bmm: product,
    aten.addmm: product_and_sum,
    aten.baddbmm: product_and_sum,
    aten.mv: matrix_and_vector,
    aten.convolution: convolution,
    aten.native_layer_norm: layer_norm,
    aten.native_group_norm: group_norm,
}
