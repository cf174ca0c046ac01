"""The signature of a channel set at each of its consumers: followed through the graph, step by step.

What each kind of step does to inner products is in the table of `core.signature`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from torch import Tensor, fx

from core.channels import Channels, ChannelSet
from core.gaussian import correlation
from core.graph import Layer, Step
from core.graph.trace import attribute
from core.signature import (
    DIVISIONS,
    PublishedTerms,
    Signature,
    activated,
    added,
    as_gate,
    beside,
    inner_products,
    likeness,
    multiplied,
    summands,
    times_constant,
)


def signatures(channels: Channels, channel_set: ChannelSet, *, covariances: bool = False) -> dict[str, Signature]:
    """Return the signature of the set's channels at the input of each of its consumers, by layer name.

    Consumers that share one weight have one signature, under the first one's name, in which all their inputs count.
    With ``covariances`` the assumed ones are followed too, and with them means where no batch norm gives any. Of pairs
    of queries and keys it is that of the keys, under the name of the queries' layer (`core.pairs`).
    """
    if channel_set.pairs is not None:
        walk = _Walk(channels, channel_set, covariances)
        keys = walk.rows(channels.layers[channel_set.pairs[1]])
        return {channel_set.pairs[0]: replace(keys, bias=torch.zeros_like(keys.bias))}
    found = _along(channels, channel_set, channels.graph.steps, covariances)
    trained = _along(channels, channel_set, channels.graph.training_steps, covariances)
    return {**found, **{name: signature for name, signature in trained.items() if name not in found}}


def _along(
    channels: Channels, channel_set: ChannelSet, steps: Mapping[fx.Node, Step], covariances: bool
) -> dict[str, Signature]:
    """The signatures at the consumers along the steps of one graph."""
    walk = _Walk(channels, channel_set, covariances)
    found: dict[str, Signature] = {}
    owner: dict[str, str] = {}
    for node, step in steps.items():
        given = [walk.at[source] for source in step.inputs if source in walk.at]
        if step.mixer is not None:
            if given and step.mixer.name in channel_set.consumers:
                name = owner.setdefault(step.mixer.weight, step.mixer.name)
                found[name] = _final(beside([*_list(found.get(name)), *given]))
            if step.mixer.name in channel_set.producers:
                walk.at[node] = walk.assumed(walk.rows(step.mixer))
        elif step.kind == "parameter":
            walk.constant(node, step)
        elif step.kind == "pairs":
            continue
        elif given:
            walk.at[node] = walk.through(step, given)
    return found


def _list(signature: Signature | None) -> list[Signature]:
    return [] if signature is None else [signature]


def _final(signature: Signature) -> Signature:
    return signature if signature.normed else signature.folded()


@dataclass
class _Walk:
    channels: Channels
    channel_set: ChannelSet
    covariances: bool

    def __post_init__(self) -> None:
        self.at: dict[fx.Node, Signature] = {}

    def parameter(self, name: str) -> Tensor | None:
        value = attribute(self.channels.graph.model, name, self.channels.graph.traced)
        return None if value is None else value.detach().cpu()  # as what says which channels there are

    def along(self, name: str, axis: int = 0) -> Tensor | None:
        """A per-channel parameter in the order of the set's channels, (n, …), float64; None: it does not cover them."""
        value = self.stored(name, axis)
        return None if value is None else value.double()

    def stored(self, name: str, axis: int) -> Tensor | None:
        """The same in the number format that the network has it in."""
        where = self.channels.local(self.channel_set, self.channels.graph.canonical(name), axis)
        own = torch.full((self.channel_set.size,), -1, dtype=torch.long)
        covered = where >= 0
        own[where[covered]] = torch.arange(len(where))[covered]
        value = self.parameter(name)
        if value is None or bool((own < 0).all()):
            return None
        value = value.movedim(axis, 0)
        if not torch.equal(own, torch.arange(len(value))):
            value = value[own.clamp_min(0).to(value.device)]
            value[own < 0] = 0
        return value

    def places(self, name: str, axis: int = 0) -> Tensor:
        """The channels (position in the set) that a parameter's entries belong to, those of other sets left out."""
        where = self.channels.local(self.channel_set, self.channels.graph.canonical(name), axis)
        return where[where >= 0]

    def rows(self, layer: Layer) -> Signature:
        """Rows W (n, fan_in) of a producer; a channel that has several rows (a gated unit) is all of them together."""
        where = self.places(layer.weight, layer.write_axis)
        several = len(where) > len(torch.unique(where))
        rows = (self.each_row if several else self.stored)(layer.weight, layer.write_axis)
        assert rows is not None
        rows = rows.flatten(1)
        gram = inner_products(rows)
        if layer.groups > 1 and self.channel_set.blocks is not None:  # rows read the channels of their group
            gram = gram * (self.channel_set.blocks[:, None] == self.channel_set.blocks)
        if self.parameter_or_none(layer.bias) is None:
            return Signature(gram, gram.new_zeros(len(rows)))
        if several:
            bias = self.each_row(layer.bias, 0)
            return Signature(gram + bias @ bias.T, gram.new_zeros(len(rows)))
        one = self.along(layer.bias)
        return Signature(gram, gram.new_zeros(len(rows)) if one is None else one)

    def assumed(self, s: Signature) -> Signature:
        """With the moments of a producer's outputs, if covariances are followed: its inputs are taken to be white."""
        if not self.covariances:
            return s
        return replace(s, mean=s.bias, std=s.gram.diagonal().clamp_min(0).sqrt(), covariance=s.gram)

    def each_row(self, name: str, axis: int) -> Tensor:
        """All rows (n, m, …) of each channel, for a parameter whose every channel has m of them."""
        where = self.channels.local(self.channel_set, self.channels.graph.canonical(name), axis)
        value = self.parameter(name)
        assert value is not None
        covered = torch.isin(torch.arange(self.channel_set.size), where)
        order = torch.argsort(where, stable=True)
        order = order[where[order] >= 0].view(int(covered.sum()), -1)
        found = value.new_zeros(self.channel_set.size, order.shape[1], *value.movedim(axis, 0).shape[1:]).double()
        found[covered] = value.movedim(axis, 0)[order].double()
        return found

    def parameter_or_none(self, name: str) -> Tensor | None:
        try:
            return self.parameter(name)
        except AttributeError:
            return None

    def through(self, step: Step, given: list[Signature]) -> Signature:
        """The signature behind a channel-wise step.

        Raises:
            AssertionError: a kind of step that is not channel-wise, which is a bug.
        """
        s = given[0]
        match step.kind:
            case "concat":
                return beside(given)
            case "add" if step.op in ("maximum", "minimum"):
                return beside(given, mean=False)
            case "add":
                return added([self.at[n].times(f) for n, f in summands(step) if n in self.at])
            case "mul":
                if len(given) == 2 and (factor := times_constant(given, step)) is not None:
                    return factor
                divisors = [self.at[n] for n in step.inputs[1:] if n in self.at and step.op in DIVISIONS]
                return multiplied([*given[: len(given) - len(divisors)], *map(as_gate, divisors)])
            case "activation":
                return activated(s, step)
            case "batch-norm":
                return self.batch_norm(s, step)
            case "depthwise":
                return self.depthwise(s, step)
            case "parameter-mul" | "parameter-add":
                return self.with_parameter(s, step)
            case "prelu":
                return self.prelu(s, step)
            case "norm":
                return self.norm(s, step)
            case "move" | "pool":
                return s if step.options.get("exact", True) else replace(s, approximate=(*s.approximate, step.op))
            case "layer" | "parameter" | "pairs":
                raise AssertionError(f"{step.node} is not channel-wise")
            case _:
                assert_never(step.kind)

    def constant(self, node: fx.Node, step: Step) -> None:
        """A parameter that is read as data: a channel of it is a number, known exactly."""
        values = self.along(step.parameters["weight"], step.options["axis"])
        if values is not None:
            values = values.flatten().double()
            nothing = torch.zeros_like(values)
            cov = torch.diag(nothing) if self.covariances else None
            self.at[node] = Signature(torch.diag(nothing), values, mean=values, std=nothing, covariance=cov)

    def batch_norm(self, s: Signature, step: Step) -> Signature:
        names = step.parameters
        mu, var = self.along(names["running_mean"]), self.along(names["running_var"])
        assert mu is not None
        assert var is not None
        gamma = self.along(names["weight"]) if self.parameter_or_none(names.get("weight", "")) is not None else None
        beta = self.along(names["bias"]) if self.parameter_or_none(names.get("bias", "")) is not None else None
        gamma = torch.ones_like(mu) if gamma is None else gamma
        beta = torch.zeros_like(mu) if beta is None else beta
        a = gamma / torch.sqrt(var + step.options["eps"])
        if bool((torch.bincount(self.places(names["running_mean"])) > 1).any()):
            s = replace(s, approximate=(*s.approximate, "batch norm of each position"))
        published = None if s.normed or s.inside else PublishedTerms(s.gram, gamma, beta, mu, var)
        s = s.open()
        out = s.scaled(a)
        bias = beta + a * (s.bias - mu)
        constant = out.gram.diagonal() <= 0  # a channel without weights is its constant, whatever the norm recorded
        mean, std = torch.where(constant, bias, beta), torch.where(constant, torch.zeros_like(a), gamma.abs())
        cov = None
        if self.covariances:  # the norm knows the variances, the weights the correlations
            cov = correlation(out.gram if out.covariance is None else out.covariance) * torch.outer(std, std)
        return replace(out, bias=bias, normed=True, mean=mean, std=std, covariance=cov, published=published)

    def norm(self, s: Signature, step: Step) -> Signature:
        """Layer, group or instance norm: exact between equal channels; its own mean and variance are not followed.

        A channel that is read at several places, as four tokens that Swin merges, has a factor and a constant for each.
        """
        s = s.folded()
        gammas, beta = self.each_of(step, "weight"), self.each_of(step, "bias")
        if gammas is not None and gammas.shape[1] > 1:
            s = replace(s, gram=s.gram * (gammas @ gammas.T / gammas.shape[1]))
        elif gammas is not None:
            s = s.scaled(gammas[:, 0])
        bias = torch.zeros_like(s.bias) if beta is None else beta.mean(1)
        approximate = (*s.approximate, step.op)
        return replace(s, bias=bias, mean=None, std=None, covariance=None, approximate=approximate)

    def each_of(self, step: Step, name: str) -> Tensor | None:
        """What a step's parameter is at each place of each channel, (n, places); None where there is none."""
        own = step.parameters.get(name, "")
        times = torch.bincount(self.places(own)) if own else torch.zeros(0)
        if len(times) and int(times.max()) > 1 and len(torch.unique(times[times > 0])) == 1:
            return self.each_row(own, 0).flatten(1)
        one = self.along(own) if len(times) else None
        return None if one is None else one[:, None]

    def depthwise(self, s: Signature, step: Step) -> Signature:
        assert step.layer is not None
        k = self.along(step.layer.weight)
        assert k is not None
        k = k.flatten(1)
        bias = self.along(step.layer.bias) if self.parameter_or_none(step.layer.bias) is not None else None
        bias = k.new_zeros(len(k)) if bias is None else bias
        mean = None if s.mean is None else s.mean * k.sum(1) + bias
        s, alike = s.folded(), k @ k.T
        cov = None if s.covariance is None else s.covariance * alike  # as if no two places had to do with each other
        std = None if cov is None else cov.diagonal().clamp_min(0).sqrt()
        return replace(s, gram=s.gram * alike, bias=bias, mean=mean, std=std, covariance=cov)

    def with_parameter(self, s: Signature, step: Step) -> Signature:
        s, name = s.open(), step.parameters["weight"]
        axes = [axis for key, axis in self.channels.graph.atoms.axes if key == self.channels.graph.canonical(name)]
        values = self.along(name, axes[0]) if axes else None
        if values is None:  # one number for all channels
            factor = self.parameter(name)
            assert factor is not None
            values = factor.flatten()[:1].double().expand(self.channel_set.size)
        if step.options.get("second"):  # the parameter comes first: p − x, p / x
            return replace(s.folded(), mean=None, std=None, covariance=None, approximate=(*s.approximate, step.op))
        if step.op in DIVISIONS:
            values = 1 / values
        if step.kind == "parameter-add":
            values = values * summands(step)[-1][1]
        if step.kind == "parameter-mul":
            return s.scaled(values.flatten(1).mean(1) if values.dim() > 1 else values)
        rest = values.flatten(1) if values.dim() > 1 else values[:, None]
        shift = rest.mean(1)
        gram = s.gram + (rest - shift[:, None]) @ (rest - shift[:, None]).T
        return replace(s, gram=gram, bias=s.bias + shift, mean=None if s.mean is None else s.mean + shift)

    def prelu(self, s: Signature, step: Step) -> Signature:
        slope = self.along(step.parameters["weight"])
        assert slope is not None
        alike = likeness(torch.outer(slope, slope))
        return replace(s, gram=s.gram * alike, mean=None, std=None, covariance=None)
