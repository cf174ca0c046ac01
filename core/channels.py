"""Channel sets: who writes some channels, what happens to them on the way, and who reads them.

Built from the channel graph: atoms tied together are one channel; channels written by a common producer are one set.
Several producers share a set when a residual sum (or a gate) ties them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from core.errors import UsageError, nearest
from core.graph import ChannelGraph, Layer, build_graph
from core.graph.nodes import LAYER_KINDS
from core.graph.rules import GATES, MODULES, OUTPUT
from core.graph.trace import attribute


@dataclass(frozen=True)
class ChannelSet:
    """``size`` channels that are written, transformed and read together; one channel is one unit to keep or remove.

    Attributes:
        name: of the first producer.
        producers: names of the layers that write the channels.
        consumers: names of the layers that read them.
        channel_wise: names of the depthwise layers that carry them.
        size: how many channels there are.
        units: (size,) numbers of the channels in `Channels.unit_of`.
        blocks: (size,) block of each channel, where as many must be kept in every block: groups of a convolution or a
            norm, heads of an attention.
        pairs: names of the layers that write the queries and the keys, where the channels are the dimensions of an
            attention's heads: no layer reads these, each query is multiplied with its key (`core.pairs`).
    """

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channel_wise: tuple[str, ...]
    size: int
    units: Tensor
    blocks: Tensor | None = None
    pairs: tuple[str, str] | None = None

    def matches(self, patterns: tuple[str, ...] | None) -> bool:
        """Whether one of the producers' names matches one of the glob patterns (None matches all)."""
        return patterns is None or any(fnmatchcase(p, pattern) for p in self.producers for pattern in patterns)


@dataclass(frozen=True)
class Channels:
    """All channel sets of a network, and for every layer without one the reason.

    Attributes:
        graph: what they were found in.
        sets: in the order of the graph.
        skipped: layer without a channel set -> the reason in words.
        unit_of: atom -> channel number.
    """

    graph: ChannelGraph
    sets: tuple[ChannelSet, ...]
    skipped: Mapping[str, str]
    unit_of: Tensor

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.graph.layers}

    @cached_property
    def units_along(self) -> dict[tuple[str, int], Tensor]:
        """The channel number of each index of every parameter axis that carries channels, by (parameter, axis)."""
        return {key: self.unit_of[atoms.long()] for key, atoms in self.graph.atoms.axes.items()}

    @cached_property
    def _places(self) -> dict[str, Tensor]:
        return {}

    @cached_property
    def _parts(self) -> dict[str, list[Tensor]]:
        return {}

    @cached_property
    def _same(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name, first in self.graph.aliases.items():
            names.setdefault(first, []).append(name)
        return {name: names[first] for name, first in self.graph.aliases.items()}

    def names_of(self, parameter: str) -> list[str]:
        """All names of a parameter, which several modules may share."""
        return self._same.get(parameter, [parameter])

    @cached_property
    def _depthwise(self) -> frozenset[Layer]:
        return _depthwise(self.graph)

    def is_depthwise(self, layer: Layer) -> bool:
        """Whether a layer carries channels through one by one instead of reading them."""
        return layer in self._depthwise

    @cached_property
    def normed(self) -> frozenset[str]:
        """Names of the layers whose output goes straight into a batch norm."""
        steps = self.graph.steps.values()
        sources = [self.graph.steps.get(step.inputs[0]) for step in steps if step.kind == "batch-norm"]
        return frozenset(s.layer.name for s in sources if s is not None and s.layer is not None)

    @cached_property
    def means_behind(self) -> dict[str, str]:
        """Layer without a bias whose output only a batch norm reads -> that one's running mean, if it is its own."""
        steps = self.graph.steps
        layers = [step.layer for step in (*steps.values(), *self.graph.training_steps.values()) if step.layer]
        means = [step.parameters.get("running_mean", "") for step in steps.values()]
        found = {}
        for node, step in steps.items():
            behind = steps.get(next(iter(node.users))) if len(node.users) == 1 else None
            if step.layer is None or behind is None or behind.kind != "batch-norm" or layers.count(step.layer) > 1:
                continue
            mean = behind.parameters.get("running_mean", "")
            if mean and means.count(mean) == 1 and self._without_bias(step.layer):
                found[step.layer.name] = mean
        return found

    def constant_of(self, layer: Layer) -> tuple[str, int]:
        """What adds a constant to a layer's outputs, and its sign; "" where nothing does that is the layer's own.

        That is the running mean of the batch norm behind it, if it has no bias and that can be, else its bias.
        """
        mean = self.means_behind.get(layer.name, "")
        return (mean, -1) if mean else (self.graph.own_bias(layer), 1)

    def _without_bias(self, layer: Layer) -> bool:
        try:
            return attribute(self.graph.model, layer.bias) is None
        except AttributeError:
            return True

    @cached_property
    def gates(self) -> frozenset[str]:
        """Names of the layers whose output, behind a sigmoid, multiplies other channels (squeeze-excite)."""
        found = set()
        for product in (step for step in self.graph.steps.values() if step.kind == "mul"):
            for node in product.inputs:
                step, gated = self.graph.steps.get(node), False
                while step is not None and step.single:
                    gated |= step.op in GATES
                    step = self.graph.steps.get(step.inputs[0])
                if gated and step is not None and step.mixer is not None:
                    found.add(step.mixer.name)
        return frozenset(found)

    def without(self, reasons: Mapping[str, str]) -> Channels:
        """The same network with some sets left alone: ``reasons`` by the set's name."""
        sets = tuple(s for s in self.sets if s.name not in reasons)
        known = {name for s in sets for name in (*s.producers, *s.channel_wise)}
        left = {
            name: reasons[s.name]
            for s in self.sets
            if s.name in reasons
            for name in (*s.producers, *s.channel_wise)
            if name not in known
        }
        return replace(self, sets=sets, skipped={**self.skipped, **left})

    def local(self, channel_set: ChannelSet, parameter: str, axis: int = 0) -> Tensor:
        """For each index of a parameter's axis, the position 0 … size-1 of its channel in the set, or -1."""
        units = self.units_along.get((parameter, axis))
        if units is None:
            return torch.empty(0, dtype=torch.long)
        if channel_set.name not in self._places:
            lookup = torch.full((len(self.unit_of),), -1, dtype=torch.long)
            lookup[channel_set.units] = torch.arange(channel_set.size)
            self._places[channel_set.name] = lookup
        return self._places[channel_set.name][units]

    def parts_of(self, channel_set: ChannelSet) -> list[Tensor]:
        """Of each layer that writes, carries or reads only some of a set's channels, their positions in the set."""
        if channel_set.name not in self._parts:
            found = []
            for name in (*channel_set.producers, *channel_set.channel_wise, *channel_set.consumers):
                layer = self.layers[name]
                axis = layer.read_axis if name in channel_set.consumers else layer.write_axis
                own = torch.unique(self.local(channel_set, layer.weight, axis))
                found.append(own[own >= 0])
            self._parts[channel_set.name] = [own for own in found if 0 < len(own) < channel_set.size]
        return self._parts[channel_set.name]

    def select(self, patterns: tuple[str, ...] | None) -> tuple[ChannelSet, ...]:
        """The sets whose producers match one of the patterns.

        Raises:
            UsageError: a pattern matches no producer of any set; the message names the nearest producers.
        """
        names = [p for s in self.sets for p in s.producers]
        for pattern in patterns or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(f"sites: {pattern!r} matches no producer of a channel set; {nearest(pattern, names)}")
        return tuple(s for s in self.sets if s.matches(patterns))


def find_channels(model: nn.Module, example_inputs: Any) -> Channels:
    """Find the channel sets of ``model`` by running it once on ``example_inputs`` (a tensor or a tuple of arguments).

    Raises:
        ModelError: see `core.graph.build_graph`.
    """
    graph = build_graph(model, example_inputs)
    numbers = graph.atoms.units()
    unit_of = torch.from_numpy(numbers).long()
    reasons: dict[int, str] = {}
    for atom, reason in graph.atoms.frozen.items():
        reasons.setdefault(int(numbers[atom]), reason)
    sets, skipped = [], {}
    tied = _tied_layers(graph, unit_of)
    for layers, around in zip(tied, _around(graph, unit_of, tied), strict=True):
        names, units = tuple(layer.name for layer in layers), around.units
        blocks, clash = _blocks(graph, unit_of, units)
        unused = "only training uses it" if graph.training_only.issuperset(names) else ""
        reason = unused or _why_not(around, reasons) or clash or around.clash(blocks)
        if reason:
            skipped.update(dict.fromkeys(names, reason))
        else:
            around_it = tuple(around.readers), tuple(around.carriers)
            pairs = next(iter(around.pairs), None)
            sets.append(ChannelSet(names[0], names, *around_it, len(units), units, blocks, pairs))
    skipped.update(_untouched(graph, sets, skipped))
    return Channels(graph, tuple(sets), skipped, unit_of)


def _units(graph: ChannelGraph, unit_of: Tensor, parameter: str, axis: int) -> Tensor:
    atoms = graph.atoms.axes.get((parameter, axis))
    return unit_of[atoms.long()] if atoms is not None else torch.empty(0, dtype=torch.long)


def _tied_layers(graph: ChannelGraph, unit_of: Tensor) -> list[list[Layer]]:
    """Layers grouped by the channels they write in common, in the order of the graph."""
    depthwise = _depthwise(graph)
    layers = [la for la in graph.layers if (la.weight, la.write_axis) in graph.atoms.axes and la not in depthwise]
    if not layers:
        return []
    written = [torch.unique(_units(graph, unit_of, layer.weight, layer.write_axis)) for layer in layers]
    rows = np.repeat(np.arange(len(layers)), [len(units) for units in written])
    columns = torch.cat(written).numpy() + len(layers)
    size = len(layers) + int(unit_of.max()) + 1
    ties = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    component = connected_components(ties, directed=False)[1][: len(layers)]
    tied: dict[int, list[Layer]] = {}
    for layer, number in zip(layers, component, strict=True):
        tied.setdefault(int(number), []).append(layer)
    return list(tied.values())


def _depthwise(graph: ChannelGraph) -> frozenset[Layer]:
    """The layers that carry channels through one by one."""
    steps = (*graph.steps.values(), *graph.training_steps.values())
    return frozenset(step.layer for step in steps if step.kind == "depthwise" and step.layer is not None)


@dataclass
class _Around:
    """The channels that some layers write in common, with the layers around them.

    Attributes:
        units: numbers of the channels.
        writers: how many layers write them.
        readers: names of the layers that read them.
        carriers: names of the layers that carry them channel-wise.
        uneven: layer that reads some of the channels more often than others -> channels and how often, (k,) each.
        pairs: names of the layers of queries and keys that these channels are multiplied as.
    """

    units: Tensor
    writers: int
    readers: list[str] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)
    uneven: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def clash(self, blocks: Tensor | None) -> str:
        """Why the columns of a layer cannot be sorted by channel; "" if they can, within each of the ``blocks``."""
        for name, (units, times) in self.uneven.items():
            place = {int(unit): number for number, unit in enumerate(self.units)}
            own = [0 if blocks is None else int(blocks[place[int(unit)]]) for unit in units]
            if len({*zip(own, times.tolist(), strict=True)}) > len({*own}):
                return f"{name} reads some of these channels more often than others"
        return ""


def _around(graph: ChannelGraph, unit_of: Tensor, tied: list[list[Layer]]) -> list[_Around]:
    """What is around the channels of each group of tied layers."""
    owner = torch.full((int(unit_of.max()) + 1,), -1)  # no channel has two: who writes one in common is tied
    found, depthwise = [], _depthwise(graph)
    for number, layers in enumerate(tied):
        units = torch.cat([_units(graph, unit_of, layer.weight, layer.write_axis) for layer in layers])
        found.append(_Around(torch.from_numpy(_in_order(units.numpy())), len(layers)))
        owner[found[-1].units] = number
    for layer in graph.layers:
        read, counts = torch.unique(_units(graph, unit_of, layer.weight, layer.read_axis), return_counts=True)
        touched = _units(graph, unit_of, layer.weight, 0) if layer in depthwise else read
        for number in torch.unique(owner[touched]).tolist():
            if number >= 0:
                (found[number].carriers if layer in depthwise else found[number].readers).append(layer.name)
        for number in torch.unique(owner[read]).tolist():
            mine = owner[read] == number
            if number >= 0 and int(counts[mine].min()) != int(counts[mine].max()):
                found[number].uneven[layer.name] = read[mine], counts[mine]
    for step in (*graph.steps.values(), *graph.training_steps.values()):
        for layer in step.options["layers"] if step.kind == "pairs" else ():
            number = int(owner[_units(graph, unit_of, layer.weight, layer.write_axis)[0]])
            found[number].pairs.add(tuple(la.name for la in step.options["layers"]))
    return found


def _in_order(units: np.ndarray) -> np.ndarray:
    """Each unit once, in order of first appearance: for one producer, its own row order."""
    _, first = np.unique(units, return_index=True)
    return units[np.sort(first)]


def _why_not(around: _Around, reasons: dict[int, str]) -> str:
    frozen = [reasons[u] for u in around.units.tolist() if u in reasons]
    if frozen:
        return next((r for r in frozen if r == OUTPUT), frozen[0])
    if len(around.units) < 2:
        return "it has a single channel"
    if around.pairs and (around.readers or around.carriers or around.writers != 2 or len(around.pairs) > 1):
        return "its queries or keys are used for something else, too"
    if not around.readers and not around.pairs:
        return "no layer reads it"
    return ""


def _blocks(graph: ChannelGraph, unit_of: Tensor, units: Tensor) -> tuple[Tensor | None, str]:
    """The block of each channel (size,), or None; and why the demands on a set cannot be met together, if so."""
    found: Tensor | None = None
    for atoms, groups, owner in graph.atoms.balanced:
        theirs = unit_of[atoms.long()]
        inside = torch.isin(theirs, units)
        parts = theirs.view(groups, -1).sort(dim=1).values
        if not bool(inside.any()) or torch.equal(parts, parts[:1].expand_as(parts)):
            continue  # none of these channels, or every group holds the same ones
        part = torch.arange(groups).repeat_interleave(len(theirs) // groups)
        where = {int(unit): int(block) for unit, block in zip(theirs, part, strict=True)}
        astray = any(where[int(unit)] != int(block) for unit, block in zip(theirs, part, strict=True))
        if not bool(inside.all()) or len(where) != len(units) or astray:
            return None, f"{owner} works on groups of channels from several sets"
        blocks = torch.tensor([where[int(unit)] for unit in units])
        if found is not None and not torch.equal(found, blocks):
            return None, f"{owner} groups these channels in another way than the layers before it"
        found = blocks
    if found is not None and int(torch.bincount(found).min()) < 2:
        return None, "its groups have a single channel each"
    return found, ""


def _untouched(graph: ChannelGraph, sets: list[ChannelSet], skipped: dict[str, str]) -> dict[str, str]:
    """Reasons for the convolutions and linear layers that are neither in a set nor skipped yet."""
    known = {name for s in sets for name in (*s.producers, *s.channel_wise)} | set(skipped)
    reasons = dict(graph.opaque)
    for name, module in graph.model.named_modules():
        if name in known or name in reasons or MODULES.get(type(module)) not in LAYER_KINDS:
            continue
        owner = next((o for o in graph.opaque if name.startswith(f"{o}.")), None)
        if owner is not None:
            reasons[name] = f"inside {owner}: {graph.opaque[owner]}"
        elif any(layer.name == name for layer in graph.layers):
            reasons[name] = "it works on channels that cannot be removed"
        else:
            reasons[name] = "the traced forward pass does not use it"
    return {name: reason for name, reason in reasons.items() if name not in known}
