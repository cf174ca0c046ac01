"""Which channels stay: those with the highest scores of a criterion."""

from __future__ import annotations

import torch
from torch import Tensor

from core.channels import Channels, ChannelSet


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
