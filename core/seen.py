"""What each consumer of a channel set reads of its channels on calibration images: from patches to channels.

A channel has several columns among what a consumer reads: one per tap of a convolution, and behind a flatten one per
place. Two channels are alike at the same tap and place, so their moments are averaged over these; the zeros that a tap
of a transposed convolution meets between two inputs are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.channels import Channels, ChannelSet
from core.criteria.base import Consumer
from core.decompositions.base import ChannelMoments
from core.errors import UnseenInputError
from core.evidence import InputStatistics, scored_set


def seen_moments(
    channels: Channels, chosen: ChannelSet, statistics: InputStatistics
) -> dict[str, ChannelMoments | None]:
    """By consumer, as in `core.signatures.signatures`; None where its input cannot be laid out in rows.

    Consumers that share one weight have the moments of all they read, under the first one's name.
    """
    readers: dict[str, list[Consumer]] = {}
    for consumer in scored_set(channels, chosen, statistics).consumers:
        readers.setdefault(channels.layers[consumer.name].weight, []).append(consumer)
    return {group[0].name: _together(channels, chosen.size, group) for group in readers.values()}


def _together(channels: Channels, size: int, readers: Sequence[Consumer]) -> ChannelMoments | None:
    """The moments over everything that goes through one weight, weighted by the rows seen."""
    own: dict[str, list[Consumer]] = {}
    for reader in readers:  # halves that one layer reads, if it does not read them equally often, are added up
        own.setdefault(reader.name, []).append(reader)
    try:
        counts = [halves[0].moments.count for halves in own.values()]
    except UnseenInputError:
        return None
    parts = [_added([channel_moments(half, size) for half in halves]) for halves in own.values()]
    stride = channels.layers[readers[0].name].stride  # of a transposed convolution: how rarely a tap meets an input
    share = [stride * count / sum(counts) for count in counts]
    biased = all(channels.graph.own_bias(channels.layers[reader.name]) for reader in readers)
    mean = torch.stack([s * part.mean for s, part in zip(share, parts, strict=True)]).sum(0)
    second = torch.stack([s * part.second for s, part in zip(share, parts, strict=True)]).sum(0)
    return ChannelMoments(mean if biased else torch.zeros_like(mean), second)


def _added(halves: list[ChannelMoments]) -> ChannelMoments:
    if len(halves) == 1:
        return halves[0]
    return ChannelMoments(
        sum((h.mean for h in halves[1:]), halves[0].mean), sum((h.second for h in halves[1:]), halves[0].second)
    )


def channel_moments(consumer: Consumer, size: int) -> ChannelMoments:
    """Mean (n,) and second moment (n, n) of a set's channels, averaged over the columns that one consumer reads."""
    found = consumer.moments
    mean, second = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for group in torch.unique(consumer.group).tolist():
        inside = consumer.group == group
        own, column = consumer.channel[inside], consumer.column[inside]  # (m,), (m, p)
        mean[own] = found.mean[group][column].mean(1)
        for p in column.T:
            second[own[:, None], own] += found.second[group][p][:, p] / column.shape[1]
    return ChannelMoments(mean, second)
