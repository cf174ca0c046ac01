"""Which channels stay: those with the highest scores of a criterion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.channels import Channels, ChannelSet


def keep(
    channels: Channels, channel_set: ChannelSet, scores: Tensor, share: float, least: int = 1, multiple: int = 1
) -> Tensor:
    """Sorted indices of the kept channels: the highest scores; with blocks, as many in each.

    The paper keeps round(n(1−r)) channels of a linear layer and int(n(1−r)) of a convolution. At least ``least`` stay,
    rounded to the nearest multiple of ``multiple``, if there are so many. A layer that has a part of the channels keeps
    the best of its own.
    """
    kept = _choice(channels, channel_set, scores, share, least, multiple)
    needed = _needed(channels, channel_set, scores, kept)
    if not len(needed):
        return kept
    raised = scores.clone()
    raised[needed] = torch.inf
    return _choice(channels, channel_set, raised, share, max(least, len(needed)), multiple)


def _needed(channels: Channels, channel_set: ChannelSet, scores: Tensor, kept: Tensor) -> Tensor:
    """Channels that have to stay: of each layer with a part of them the best, if one would be left without any."""
    parts = channels.parts_of(channel_set)
    if all(bool(torch.isin(own, kept).any()) for own in parts):
        return kept[:0]
    needed: Tensor = torch.unique(torch.stack([own[scores[own].argmax()] for own in parts]))
    return needed


def _choice(
    channels: Channels, channel_set: ChannelSet, scores: Tensor, share: float, least: int, multiple: int
) -> Tensor:
    """The channels with the highest scores, as many as `keep` says."""
    linear = all(channels.layers[name].linear for name in channel_set.producers)
    size, exact = channel_set.size, channel_set.size * (1 - share)
    count = round(exact) if linear else int(exact + 1e-9)
    if channel_set.blocks is None:
        return best(scores, rounded(count, least, multiple, size))
    members = [(channel_set.blocks == block).nonzero().flatten() for block in range(int(channel_set.blocks.max()) + 1)]
    each, step = int(exact / len(members) + 1e-9), math.lcm(multiple, len(members)) // len(members)
    each = rounded(each, -(-least // len(members)), step, size // len(members))
    return torch.cat([own[best(scores[own], each)] for own in members]).sort().values


def rounded(count: int, least: int, multiple: int, size: int) -> int:
    """The multiple nearest to ``count`` (up, from the middle) that is at least ``least``, and at most ``size``."""
    if multiple > 1 and count < size:
        count = max(multiple, (count + multiple // 2) // multiple * multiple)
    return min(size, max(count, -(-least // multiple) * multiple))


def best(scores: Tensor, count: int) -> Tensor:
    """Sorted indices of the ``count`` (at least one) highest scores; ties go to the lower index."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[: max(1, count)].sort().values
