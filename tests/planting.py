"""Doubles the width of a layer without changing the network: every channel gets a proportional twin.

If the first n channels are the network's own and channel n + i is c_i times channel i behind the activation, then a
consumer that reads (1 − share)·V and share·V/c gives what it gave. Compressing the doubled network by half with l1 must
find the original again: twins' rows are smaller, so they are the ones removed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give the weights and the batch norms of ``model`` values of a trained network's kind; return it in eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            rows = torch.randn(module.weight.shape, generator=generator)
            rows = rows / rows.flatten(1).norm(dim=1).view(-1, *[1] * (rows.dim() - 1))
            module.weight.data = rows * draw(rows[:, :1], 0.8, 1.2)[:, :1]
            if module.bias is not None:
                module.bias.data = draw(module.bias, -0.2, 0.2)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.weight.data, module.bias.data = draw(module.weight, 0.5, 1.5), draw(module.bias, -0.3, 0.3)
            module.running_mean, module.running_var = draw(module.weight, -0.3, 0.3), draw(module.weight, 0.5, 2.0)
    return model.eval()


def twin_rows(layer: Any, factor: Tensor) -> None:
    """Append the rows (and biases) of a layer once more, times ``factor`` (n,)."""
    view = factor.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight.data = torch.cat([layer.weight.data, layer.weight.data * view])
    if layer.bias is not None:
        layer.bias.data = torch.cat([layer.bias.data, layer.bias.data * factor])
    _sizes(layer)


def twin_norm(norm: Any, factor: Tensor, scale: Tensor) -> None:
    """Append to a batch norm what makes row twins (``factor``) come out as ``scale`` (> 0) times the original.

    The input of channel n + i is factor·x, so its mean is factor·μ and its variance factor²·var; ε is corrected for.
    """
    sign = factor.sign()
    norm.running_mean = torch.cat([norm.running_mean, norm.running_mean * factor])
    var = (norm.running_var + norm.eps) * factor**2 - norm.eps
    norm.running_var = torch.cat([norm.running_var, var])
    norm.weight.data = torch.cat([norm.weight.data, norm.weight.data * scale * sign])
    norm.bias.data = torch.cat([norm.bias.data, norm.bias.data * scale])
    norm.num_features = len(norm.weight)


def split_columns(layer: Any, scale: Tensor, share: float = 0.4, repeat: int = 1) -> None:
    """Let a consumer read originals and twins: (1 − share)·V and share·V/scale; ``repeat``: positions per channel."""
    view = scale.repeat_interleave(repeat).view(1, -1, *[1] * (layer.weight.dim() - 2))
    v = layer.weight.data
    layer.weight.data = torch.cat([v * (1 - share), v * share / view], dim=1)
    _sizes(layer)


def _sizes(layer: Any) -> None:
    out, inside = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out, inside
    else:
        layer.out_channels, layer.in_channels = out, inside * layer.groups
