"""What criteria look at: a channel set's producers, norms and consumers, and what the consumers read on images.

The moments of a consumer's input are those of the original network. They are computed when a criterion first asks, in
one run over the images, a few at a time, and kept for as long as the same images are used: those of all sets where
they fit into memory, else those of one. Whatever a criterion gets is on the CPU, wherever the network is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx

from core.channels import Channels, ChannelSet
from core.criteria.base import Consumer, InputMoments, Norm, Producer, ScoredSet
from core.errors import UnseenInputError, UsageError
from core.gradients import LossGradients
from core.graph import Layer, Step
from core.graph.trace import GraphRunner, as_inputs, twin, undisturbed
from core.pairs import PairMoments, pair_consumers, pair_moments
from core.surgery import by_channel, by_reader, parameter
from core.windows import as_matrix, by_group, is_faithful, patches, window_of

KEPT = 250_000_000
"""Numbers in the moments that are kept at once: 2 GB of float64."""
BATCH = 10_000_000
"""Numbers in the images that are looked at together."""


@dataclass
class InputStatistics:
    """Moments of what layers read on some calibration images, each computed once.

    Attributes:
        channels: of the original network.
        calibration: inputs (N, …), a tuple of them for a network with several inputs; None: there are none.
    """

    channels: Channels
    calibration: Any
    _found: dict[str, InputMoments | str] = field(default_factory=dict)
    _pairs: dict[str, PairMoments] = field(default_factory=dict)

    @cached_property
    def _together(self) -> frozenset[str]:
        """All layers that read a set, if their moments may be kept at once; else none."""
        names = frozenset(name for s in self.channels.sets for name in s.consumers)
        fit = sum(self._numbers(self.channels.layers[name]) for name in names) <= KEPT
        return names if fit else frozenset()

    def of_pairs(self, queries: str) -> PairMoments:
        """The moments of an attention's queries and keys, by the name of the queries' layer; all at once.

        Raises:
            UsageError: there are no images.
        """
        if self.calibration is None:
            raise UsageError(
                f"the criterion looks at the queries that {queries} gives: pass calibration=images (N, …), and let it"
                " declare needs_calibration"
            )
        if queries not in self._pairs:
            with undisturbed(self.channels.graph.model):
                self._pairs = pair_moments(self.channels, *as_inputs(self.calibration))
        return self._pairs[queries]

    def _numbers(self, layer: Layer) -> int:
        weight = parameter(self.channels.graph.model, layer.weight)
        assert weight is not None
        inside = as_matrix(weight, layer, layer.groups).shape[2]
        return int(layer.groups * inside**2)

    def of(self, consumer: str, wanted: tuple[str, ...]) -> InputMoments:
        """The moments of one layer's input; those of all ``wanted`` layers are computed with it.

        Raises:
            UsageError: there are no images.
            UnseenInputError: the layer's input cannot be laid out in rows.
        """
        if self.calibration is None:
            raise UsageError(
                f"the criterion looks at what {consumer} reads: pass calibration=images (N, …), and let it declare"
                " needs_calibration"
            )
        if consumer not in self._found:
            names = self._together or {*wanted}
            with undisturbed(self.channels.graph.model):
                seen = Reading(self.channels, names).moments(*as_inputs(self.calibration))
            self._found = {**dict.fromkeys(names, "is not reached on the calibration images"), **seen}
        found = self._found[consumer]
        if isinstance(found, str):
            raise UnseenInputError(
                f"the criterion cannot look at what {consumer} reads: it {found}; leave it out with sites="
            )
        return found


class Reading(GraphRunner):
    """Runs the original network and takes down what some of its layers read."""

    def __init__(self, channels: Channels, wanted: Collection[str]) -> None:
        graph = channels.graph
        super().__init__(graph.traced, twin(graph.model), graph.unbiased)
        self._steps, self._wanted = graph.steps, wanted
        self._sums: dict[str, _Sums] = {}
        self._reasons: dict[str, str] = {}
        self._faithful: dict[fx.Node, bool] = {}

    def moments(self, *inputs: Any) -> dict[str, InputMoments | str]:
        """Of each wanted layer; in words where its input cannot be laid out in rows."""
        at_a_time = max(1, BATCH // max(1, inputs[0][0].numel()))
        for start in range(0, len(inputs[0]), at_a_time):
            self.run(*(x[start : start + at_a_time] for x in inputs))
        return {name: found.moments() for name, found in self._sums.items()} | self._reasons

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; of a wanted layer, add up what enters it."""
        step = self._steps.get(n)
        value = super().run_node(n)
        if step is not None and step.layer is not None and step.layer.name in self._wanted:
            self._add(step, step.layer, self.env[step.inputs[0]], value)
        return value

    def _add(self, step: Step, layer: Layer, x: Tensor, output: Tensor) -> None:
        window = window_of(step, layer, self)
        if isinstance(window, str):
            self._reasons[layer.name] = window
            return
        if step.node not in self._faithful:
            weight, bias = parameter(self.root, layer.weight), parameter(self.root, layer.bias)
            assert weight is not None
            matrix = as_matrix(weight, layer, layer.groups)
            self._faithful[step.node] = is_faithful(window, x, matrix, bias, output)
        if not self._faithful[step.node]:
            self._reasons[layer.name] = "is not what its weight says"
            return
        for rows, _ in patches(window, x, output):
            new = _Sums.of(by_group(rows, layer.groups))
            self._sums[layer.name] = self._sums[layer.name].plus(new) if layer.name in self._sums else new


@dataclass(frozen=True)
class _Sums:
    """Sums over rows x (groups, m, in), each (groups, in) but the products, (groups, in, in); float64."""

    count: int
    x: Tensor
    products: Tensor
    magnitude: Tensor
    active: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Sums:
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        sums = (x.sum(1), x.mT @ x, x.abs().sum(1), x.count_nonzero(1))
        return cls(x.shape[1], *(part.double() for part in sums))

    def plus(self, other: _Sums) -> _Sums:
        self.products.add_(other.products)
        parts = (self.x + other.x, self.products, self.magnitude + other.magnitude, self.active + other.active)
        return _Sums(self.count + other.count, *parts)

    def moments(self) -> InputMoments:
        n, sums = self.count, (self.x, self.products, self.magnitude, self.active)
        return InputMoments(n, *((part / n).cpu() for part in sums))


def scored_set(
    channels: Channels,
    channel_set: ChannelSet,
    statistics: InputStatistics,
    gradients: LossGradients | None = None,
    seed: int = 0,
) -> ScoredSet:
    """A channel set of the original network as a criterion sees it."""
    gradients = gradients or LossGradients(channels, None, None)
    names = [name for name in channel_set.producers if name not in channels.gates]
    return ScoredSet(
        name=channel_set.name,
        size=channel_set.size,
        producers=tuple(_producer(channels, channel_set, channels.layers[name], gradients) for name in names),
        find_norms=partial(_norms, channels, channel_set),
        find_consumers=lambda: (
            [
                consumer
                for name in channel_set.consumers
                for consumer in _consumers(channels, channel_set, channels.layers[name], statistics)
            ]
            or pair_consumers(channel_set, statistics.of_pairs)
        ),
        seed=seed,
        paired=channel_set.pairs is not None,
    )


def _producer(channels: Channels, channel_set: ChannelSet, layer: Layer, gradients: LossGradients) -> Producer:
    return Producer(
        name=layer.name,
        rows=producer_rows(channels, layer).cpu(),
        channel=channels.local(channel_set, layer.weight, layer.write_axis),
        differentiate=partial(gradients.of, layer),
    )


def producer_rows(channels: Channels, layer: Layer) -> Tensor:
    """Rows W (n, fan_in); for a linear layer without batch norm the bias is the last column."""
    weight = parameter(channels.graph.model, layer.weight)
    assert weight is not None
    rows = weight.detach().movedim(layer.write_axis, 0).flatten(1)
    bias = parameter(channels.graph.model, layer.bias)
    if layer.linear and bias is not None and layer.name not in channels.normed:
        rows = torch.cat([rows, bias.detach()[:, None]], dim=1)
    return rows


def _norms(channels: Channels, channel_set: ChannelSet) -> list[Norm]:
    found: dict[str, Norm] = {}
    for step in channels.graph.steps.values():
        name = step.parameters.get("weight", "")
        if step.kind not in ("batch-norm", "norm") or not name or name in found:
            continue
        where = channels.local(channel_set, name)
        if bool((where >= 0).any()):
            spread = partial(_spread, channels, channel_set.size, where, step)
            parts = [spread(part) for part in ("weight", "bias", "running_mean", "running_var")]
            found[name] = Norm(name, *parts)
    return list(found.values())


def _spread(channels: Channels, size: int, where: Tensor, step: Step, part: str) -> Tensor:
    """A parameter of a norm at the set's channels (n,); NaN where there is none."""
    values = torch.full((size,), torch.nan, dtype=torch.float64)
    own = parameter(channels.graph.model, step.parameters.get(part, ""))
    if own is not None:
        values[where[where >= 0]] = own.detach().double().cpu()[where >= 0]
    return values


def _consumers(
    channels: Channels, channel_set: ChannelSet, layer: Layer, statistics: InputStatistics
) -> list[Consumer]:
    """A layer that reads a set; once for each of its halves, if it reads one of them more often than the other."""
    weight = parameter(channels.graph.model, layer.weight)
    assert weight is not None
    read = by_reader(weight.detach().cpu(), layer)
    read = read.reshape(*read.shape[:2], -1)  # (in-channels of the whole layer, out-channels of the group, taps)
    taps, inside = read.shape[2], len(read) // layer.groups
    found = []
    for covered, positions in by_channel(channels.local(channel_set, layer.weight, layer.read_axis), channel_set.size):
        columns = read[positions]  # (m, multiplicity, out, taps)
        column = (positions % inside)[:, :, None] * taps + torch.arange(taps)
        part = Consumer(
            name=layer.name,
            channel=covered.nonzero().flatten(),
            weight=columns.transpose(1, 2).flatten(2),
            group=positions[:, 0] // inside,
            column=column.flatten(1),
            biased=bool(channels.constant_of(layer)[0]),
            look=partial(statistics.of, layer.name, channel_set.consumers),
        )
        found.append(part)
    return found
