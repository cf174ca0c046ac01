"""Copies of channels, planted into any network: what merging must carry without loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.channels import Channels, ChannelSet
from core.compress import Prepared, compress, prepare
from core.criteria import CRITERIA, by_row

LARGE = 50_000_000
"""Parameters of a network that is compared as it is; smaller ones in float64."""


def merge_planted(
    prepared: Prepared, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[nn.Module, nn.Module, nn.Module, Tensor]:
    """Plant copies of the channels that the criterion ``first`` keeps, and cut the others again.

    Returns:
        The planted network, what merging and what plain pruning makes of it, and the images in their type.
    """
    CRITERIA.names()
    monkeypatch.setitem(CRITERIA._parts, "first", by_row(first_ones))
    planned = compress(prepared, images, ratio=0.5, criterion="first", decomposition="none")
    kept = {site.name: site.kept for site in planned.sites}
    planted = plant_copies(prepared, kept)
    if sum(p.numel() for p in planted.parameters()) <= LARGE:
        planted, images = planted.double(), images.double()
    again = prepare(planted, images)
    merged = compress(again, images, ratio=0.5, criterion="first")
    cut = compress(again, images, ratio=0.5, criterion="first", decomposition="none")
    assert {site.name: site.kept for site in merged.sites} == kept
    return planted, merged.model, cut.model, images


def first_ones(rows: Tensor) -> Tensor:
    """A criterion: the first channels of a set stay, whatever their weights."""
    return torch.arange(len(rows), 0, -1, dtype=torch.float64)


def plant_copies(prepared: Prepared, kept: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy of the network in which every channel that is not kept computes what a kept one of its set computes.

    ``kept``: set → the channels that will stay. Every parameter that belongs to a removed channel (producers' rows,
    biases, norms, depthwise filters, gates) is overwritten; what consumers read of it is left as random as it was.
    """
    channels = prepared.channels
    atoms = channels.graph.atoms.axes
    layers = {layer.weight: layer for layer in channels.graph.layers}
    depthwise = {name for group in channels.sets for name in group.channel_wise}
    model = copy.deepcopy(channels.graph.model)
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    source = torch.arange(int(channels.unit_of.max()) + 1)
    places = _places(channels)
    for group in channels.sets:
        lying = [tuple(places[unit]) for unit in group.units.tolist()]
        source[group.units] = group.units[_sources(group, kept[group.name], lying)]
    for (name, axis), own in atoms.items():
        layer = layers.get(name)
        if name not in state or (layer and axis == layer.read_axis and layer.name not in depthwise):
            continue
        value, units = state[name].data, channels.unit_of[own.long()]
        if axis < value.dim() and len(units) == value.shape[axis]:
            value.copy_(value.index_select(axis, _copied_index(units, source).to(value.device)))
    return model


def _places(channels: Channels) -> list[list[int]]:
    """For each channel, the parameter axes it lies on: only channels on the same ones can be copies of each other."""
    found: list[list[int]] = [[] for _ in range(int(channels.unit_of.max()) + 1)]
    for number, own in enumerate(channels.graph.atoms.axes.values()):
        for unit in channels.unit_of[own.long()].unique().tolist():
            found[unit].append(number)
    return found


def _sources(group: ChannelSet, kept: tuple[int, ...], places: list[tuple[int, ...]]) -> Tensor:
    """For each channel of a set, itself or the kept one of its own kind that it will be a copy of; taken in turn."""
    kind = [(where, -1 if group.blocks is None else int(group.blocks[i])) for i, where in enumerate(places)]
    turns: dict[Any, int] = {}
    source = list(range(group.size))
    for i in range(group.size):
        if i in kept:
            continue
        same = [k for k in kept if kind[k] == kind[i]]
        assert same, f"{group.name}: channel {i} has no kept one of its kind"
        turn = turns[kind[i]] = turns.get(kind[i], -1) + 1
        source[i] = same[turn % len(same)]
    return torch.tensor(source)


def _copied_index(units: Tensor, source: Tensor) -> Tensor:
    """Where each position is copied from: the occurrence of its source unit with the same number as its own."""
    places: dict[int, list[int]] = {}
    for position, unit in enumerate(units.tolist()):
        places.setdefault(unit, []).append(position)
    index = torch.arange(len(units))
    for unit, own in places.items():
        if int(source[unit]) != unit:
            index[own] = torch.tensor(places[int(source[unit])])
    return index
