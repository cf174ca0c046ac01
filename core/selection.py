"""Which channels stay: a criterion's scores of a set, and the highest of them."""

from __future__ import annotations

import torch
from torch import Tensor

from core.channels import Channels, ChannelSet
from core.criteria import CRITERIA
from core.graph import Layer
from core.surgery import parameter


def joint_scores(channels: Channels, channel_set: ChannelSet, criterion: str) -> Tensor:
    """Scores (n,) of a set: the criterion on its producer's rows, summed over producers after normalising each.

    A gate's producer (squeeze-excite) scales nothing by its own size and does not count.
    """
    score = CRITERIA.get(criterion)
    total = torch.zeros(channel_set.size, dtype=torch.float64)
    producers = [channels.layers[name] for name in channel_set.producers if name not in channels.gates]
    for layer in producers:
        own = score(producer_rows(channels, layer)).double().cpu()
        if len(producers) > 1:
            own = own / own.mean().clamp_min(torch.finfo(own.dtype).tiny)
        where = channels.local(channel_set, layer.weight, layer.write_axis)
        total.index_add_(0, where[where >= 0], own[where >= 0])
    return total


def producer_rows(channels: Channels, layer: Layer) -> Tensor:
    """Rows W (n, fan_in); for a linear layer without batch norm the bias is the last column."""
    weight = parameter(channels.graph.model, layer.weight)
    assert weight is not None
    rows = weight.detach().movedim(layer.write_axis, 0).flatten(1)
    bias = parameter(channels.graph.model, layer.bias)
    if layer.linear and bias is not None and layer.name not in channels.normed:
        rows = torch.cat([rows, bias.detach()[:, None]], dim=1)
    return rows


def keep(channels: Channels, channel_set: ChannelSet, scores: Tensor, share: float) -> Tensor:
    """Sorted indices of the kept channels: the highest scores; with blocks, as many in each.

    The paper keeps round(n(1−r)) channels of a linear layer and int(n(1−r)) of a convolution.
    """
    linear = all(channels.layers[name].linear for name in channel_set.producers)
    exact = channel_set.size * (1 - share)
    count = round(exact) if linear else int(exact + 1e-9)
    if channel_set.blocks is None:
        return best(scores, count)
    members = [(channel_set.blocks == block).nonzero().flatten() for block in range(int(channel_set.blocks.max()) + 1)]
    each = int(exact / len(members) + 1e-9)
    return torch.cat([own[best(scores[own], each)] for own in members]).sort().values


def best(scores: Tensor, count: int) -> Tensor:
    """Sorted indices of the ``count`` (at least one) highest scores; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[: max(1, count)].sort().values
