"""What a network weighs as a function of its widths: parameters, multiply-accumulates and bytes, without cutting it.

A weight of (out, in, …) has a factor for each axis that carries channels, and each factor is linear in the numbers of
kept channels. So every size is a sum of products of two such factors at most, and a quadratic in the width of one set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx

from core.channels import Channels, ChannelSet
from core.graph import Layer, Step
from core.graph.trace import GraphRunner, as_inputs, twin, undisturbed
from core.macs import macs
from core.surgery import parameter

Size = Literal["params", "macs", "bytes"]


class Footprint:
    """One size of a network, as a function of the widths (S,) of its channel sets.

    Attributes:
        whole: of the original network.
        widths: (S,) of the original network.
    """

    def __init__(self, terms: Sequence[_Term], constant: float, widths: Sequence[int], gained: int = 0) -> None:
        self.widths = np.array(widths, dtype=np.int64)
        self._constant = constant
        self._factor = np.array([term.factor for term in terms], dtype=np.float64)
        self._fixed = np.array([term.fixed for term in terms], dtype=np.float64).reshape(-1, 2)
        self._slope = np.array([term.slope for term in terms], dtype=np.float64).reshape(-1, 2, len(widths))
        last = sum(term.factor for term in terms[len(terms) - gained :])  # terms that the original does not have
        self.whole = self.at(self.widths) - last

    def at(self, widths: np.ndarray) -> float:
        """The size at some widths (S,)."""
        return float(self._constant + self._factor @ (self._fixed + self._slope @ widths).prod(1))

    def along(self, number: int, widths: np.ndarray) -> tuple[float, float, float]:
        """The size as a polynomial of one set's width w, all others as given: c₀, c₁, c₂ of c₀ + c₁w + c₂w²."""
        others = widths.astype(np.float64)
        others[number] = 0
        b, m, f = self._fixed + self._slope @ others, self._slope[:, :, number], self._factor
        linear = f @ (b[:, 0] * m[:, 1] + b[:, 1] * m[:, 0])
        return float(self._constant + f @ b.prod(1)), float(linear), float(f @ m.prod(1))


class _Term:
    """factor · (fixed₀ + slope₀·widths)(fixed₁ + slope₁·widths)."""

    def __init__(self, factor: float, sets: int) -> None:
        self.factor, self.fixed, self.slope = factor, [1.0, 1.0], [[0.0] * sets, [0.0] * sets]


def footprint(
    channels: Channels, sets: Sequence[ChannelSet], example_inputs: Any, of: Size, *, gains: bool = False
) -> Footprint:
    """How ``of`` depends on the widths of ``sets``, for a batch of one.

    Args:
        channels: of the network.
        sets: whose widths count, in this order; all others stay.
        example_inputs: what the network runs on, for ``macs``.
        of: which size (see `core.measure.sizes`).
        gains: whether layers that read the sets get a bias where nothing else can take up a constant.
    """
    model = channels.graph.model
    owner = torch.full((int(channels.unit_of.max()) + 1,), -1, dtype=torch.long)
    for number, chosen in enumerate(sets):
        owner[chosen.units] = number
    widths = [chosen.size for chosen in sets]
    if of == "macs":
        places = Places(channels)
        repeats = places.count(*as_inputs(example_inputs))
        terms = [_term(channels, owner, widths, name, times) for name, times in repeats.items()]
        for layer, times in places.tokens.items():  # products of queries and keys, mixtures of values
            rows = int(channels.units_along[layer.weight, layer.write_axis].numel())
            terms.append(_term(channels, owner, widths, layer.weight, times, only=layer.write_axis, entries=rows))
        whole = macs(twin(model), *as_inputs(example_inputs)) / len(as_inputs(example_inputs)[0])
        return Footprint(terms, whole - Footprint(terms, 0.0, widths).whole, widths)
    stored: dict[int, tuple[str, float]] = {}
    for name, value in (*model.named_parameters(), *(model.named_buffers() if of == "bytes" else ())):
        stored.setdefault(id(value), (name, float(value.element_size()) if of == "bytes" else 1.0))
    terms = [_term(channels, owner, widths, name, times) for name, times in stored.values()]
    more = _new_biases(channels, sets, owner, widths, of) if gains else []
    return Footprint([*terms, *more], 0.0, widths, gained=len(more))


def _new_biases(
    channels: Channels, sets: Sequence[ChannelSet], owner: Tensor, widths: Sequence[int], of: Size
) -> list[_Term]:
    """A term for each bias that a layer may get (see `Channels.constant_of`): as long as its weight has rows."""
    found = {}
    for layer in (channels.layers[name] for chosen in sets for name in chosen.consumers):
        name, sign = channels.constant_of(layer)
        weight = parameter(channels.graph.model, layer.weight)
        assert weight is not None
        if sign > 0 and name and parameter(channels.graph.model, name) is None:
            rows = weight.shape[layer.write_axis] * (layer.groups if layer.transposed else 1)
            times = float(weight.element_size()) if of == "bytes" else 1.0
            found[name] = _term(channels, owner, widths, layer.weight, times, only=layer.write_axis, entries=rows)
    return list(found.values())


def _term(
    channels: Channels,
    owner: Tensor,
    widths: Sequence[int],
    name: str,
    times: float,
    *,
    only: int | None = None,
    entries: int | None = None,
) -> _Term:
    """``times`` the number of entries of a parameter, as a function of the widths; or along ``only`` one axis."""
    value = parameter(channels.graph.model, name)
    assert value is not None
    canonical = channels.graph.canonical(name)
    term, place = _Term(times * (value.numel() if entries is None else entries), len(widths)), 0
    for (other, axis), atoms in channels.graph.atoms.axes.items():
        if other != canonical or only not in (None, axis):
            continue
        found = owner[channels.unit_of[atoms.long()]]
        counts = torch.bincount(found[found >= 0], minlength=len(widths))
        if not bool(counts.any()):
            continue
        assert place < 2, "a parameter carries channels along two axes at most"
        term.fixed[place] = float((found < 0).sum()) / len(found)
        term.slope[place] = [int(c) / w / len(found) for c, w in zip(counts, widths, strict=True)]
        place += 1
    return term


class Places(GraphRunner):
    """Runs a network and counts how often each entry of a weight is multiplied, per example.

    Attributes:
        tokens: layer of an attention's keys or values -> pairs of tokens for which each of its channels is multiplied,
            per example; known after `count`.
    """

    def __init__(self, channels: Channels) -> None:
        graph = channels.graph
        super().__init__(graph.traced, twin(graph.model), graph.unbiased)
        self._graph, self._found = graph, dict[str, float]()
        self.tokens: dict[Layer, float] = {}

    def count(self, *inputs: Any) -> dict[str, float]:
        """Weight -> multiplications of each of its entries, for one example of the ``inputs``."""
        with undisturbed(self._graph.model):
            self.run(*inputs)
        self.tokens = {layer: times / len(inputs[0]) for layer, times in self.tokens.items()}
        return {name: times / len(inputs[0]) for name, times in self._found.items()}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; of a layer, add up the places where it is laid over its input."""
        step: Step | None = self._graph.steps.get(n)
        value = super().run_node(n)
        if step is not None and step.layer is not None:
            self._found[step.layer.weight] = self._found.get(step.layer.weight, 0.0) + self._places(step, value)
        if step is not None and step.op in ("paired", "attend"):
            self._attended(step, value)
        return value

    def _attended(self, step: Step, value: Any) -> None:
        """Count the pairs of tokens of an attention: those that ask, for each that is asked."""
        source = self._graph.steps.get(step.inputs[-1])
        if source is None or source.layer is None:
            return
        asked, first = self.env[step.inputs[-1]], value[0] if step.kind == "pairs" else value
        batched = asked.dim() > 2
        tokens = 0 if not batched or step.node.args[-1] is False else 1
        pairs = first[..., 0].numel() * asked.shape[tokens]
        self.tokens[source.layer] = self.tokens.get(source.layer, 0.0) + pairs

    def _places(self, step: Step, value: Tensor) -> float:
        layer: Layer | None = step.layer
        assert layer is not None
        if layer.linear:
            return value.numel() / value.shape[-1]
        laid: Tensor = self.env[step.inputs[0]] if layer.transposed else value
        weight = self.fetch_attr(layer.weight)
        batched = laid.dim() == weight.dim()
        return laid.numel() / laid.shape[1 if batched else 0]
