r"""Pairs: dimension j of a head's queries and of its keys, which are multiplied with each other and with nothing else.

The products of a head are scale·Σ_j q_j k_j, for every token t that asks and every token s that is asked. Where pairs
R are removed and pairs K stay, the queries make up for them: with k_R ≈ B·k_K over the tokens that are asked,

    Σ_j q_j k_j ≈ q_K·k_K + q_R·B k_K = (q_K + Bᵀ q_R)·k_K,

so the queries' layer becomes W_K + Bᵀ W_R, its bias likewise, and the keys' layer is only cut. What is the same for
all tokens that are asked, a bias of the keys above all, is lost in the softmax: B is found from the keys' rows without
their bias, or on calibration images from the keys less their mean over the tokens of each image. With B the regression
G_RK (G_KK + a·I)⁻¹ of these (``gram``), the products are the nearest in least squares to the original ones, whatever
the queries are. ``least-squares``, which refits layers that read what is removed, finds none here: it takes this
regression, drawn towards the merge B₀ that it starts from, B = B₀ + (G_RK − B₀ G_KK)(G_KK + a·I)⁻¹.

The price of a pair on images is that of a column of a linear layer that reads the keys: E[(Σ_j q_j Δk_j)²] =
E[Δkᵀ C Δk], C = E[qqᵀ] = VᵀV, so V stands for the weight of the layer (`core.elimination`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from core.channels import Channels, ChannelSet
from core.criteria.base import Consumer, InputMoments
from core.decompositions.base import ChannelMoments, Decomposition, Merge, removed
from core.graph.trace import GraphRunner, twin
from core.signature import Signature
from core.surgery import assign, parameter

BATCH = 10_000_000
"""Numbers in the images that are looked at together."""

DAMPING = 1e-3
"""Ridge of that regression, as a share of the keys' mean variance."""


@dataclass(frozen=True)
class PairMoments:
    """Of an attention on calibration images, in the original network; float64.

    Attributes:
        count: tokens seen.
        queries: (h, d, d), the mean of q·qᵀ.
        keys: (h, d, d), the mean of k·kᵀ around each image's own mean.
    """

    count: int
    queries: Tensor
    keys: Tensor

    def plus(self, other: PairMoments) -> PairMoments:
        """Those of both, each token counting alike."""
        count, share = self.count + other.count, other.count / (self.count + other.count)
        return PairMoments(
            count, torch.lerp(self.queries, other.queries, share), torch.lerp(self.keys, other.keys, share)
        )


class Drawn(Decomposition):
    """The regression that ``least-squares`` takes for pairs.

    Attributes:
        start: gives B₀.
    """

    needs_moments: ClassVar[bool] = True

    start: Decomposition

    def merge_seen(self, signature: Signature, kept: Tensor, moments: ChannelMoments | None) -> Merge:
        """Return B (n, k), identity on the kept pairs; keys have no mean, so there is no offset."""
        prior = self.start.merge(signature, kept)
        if moments is None:
            return prior
        z, g = prior.z.clone(), moments.covariance
        own, gone = g[kept][:, kept], removed(len(g), kept)
        eye = torch.eye(len(kept), dtype=g.dtype)
        step, failed = torch.linalg.solve_ex(
            own + DAMPING * own.diagonal().mean() * eye, (g[gone][:, kept] - z[gone] @ own).mT
        )
        if not int(failed) and bool(step.isfinite().all()):
            z[gone] += step.mT
        return replace(prior, z=z)


def pair_moments(channels: Channels, *inputs: Any) -> dict[str, PairMoments]:
    """Of each attention that is followed, by the name of its queries' layer, on images (N, …)."""
    reading = _Reading(channels)
    at_a_time = max(1, BATCH // max(1, inputs[0][0].numel()))
    for start in range(0, len(inputs[0]), at_a_time):
        reading.run(*(x[start : start + at_a_time] for x in inputs))
    return reading.found


class _Reading(GraphRunner):
    """Runs the original network and takes down queries and keys."""

    def __init__(self, channels: Channels) -> None:
        graph = channels.graph
        super().__init__(graph.traced, twin(graph.model), graph.unbiased)
        self._steps = graph.steps
        self.found: dict[str, PairMoments] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; of an attention, add up what is multiplied."""
        step = self._steps.get(n)
        if step is not None and step.kind == "pairs":
            heads, first = step.options["heads"], step.options["batch_first"]
            q, k = (_tokens(self.env[source], heads, batch_first=first) for source in step.inputs)
            k = k - k.mean(2, keepdim=True)
            parts = [(x.mT @ x).double().mean(0).cpu() / x.shape[2] for x in (q, k)]
            new, name = PairMoments(q.shape[0] * k.shape[2], *parts), step.options["layers"][0].name
            self.found[name] = self.found[name].plus(new) if name in self.found else new
        return super().run_node(n)


def _tokens(x: Tensor, heads: int, *, batch_first: bool) -> Tensor:
    """Tokens (N, h, L, d) of (N, L, h·d), of (L, N, h·d), or of (L, h·d)."""
    x = x.reshape(*x.shape[:-1], heads, -1)
    x = x[None] if x.dim() == 3 else x if batch_first else x.transpose(0, 1)
    return (x if x.dtype in (torch.float32, torch.float64) else x.float()).transpose(1, 2)


def pair_consumers(channel_set: ChannelSet, look: Callable[[str], PairMoments]) -> list[Consumer]:
    """The product of queries and keys as a layer that reads the keys; none where the set is no pairs."""
    if channel_set.pairs is None:
        return []
    name, head = channel_set.pairs[0], heads_of(channel_set)
    found = look(name)
    heads, width = found.keys.shape[:2]
    values, vectors = torch.linalg.eigh(found.queries)
    root = values.clamp_min(0).sqrt()[:, :, None] * vectors.mT  # V (h, d, d): VᵀV = E[qqᵀ]
    column = torch.arange(heads * width) % width
    size = (found.queries.diagonal(dim1=1, dim2=2) * found.keys.diagonal(dim1=1, dim2=2)).clamp_min(0).sqrt()
    moments = InputMoments(found.count, torch.zeros_like(size), found.keys, size, (size > 0).double())
    return [
        Consumer(
            name=name,
            channel=torch.arange(channel_set.size),
            weight=root.mT.flatten(0, 1)[:, :, None],
            group=head,
            column=column[:, None],
            biased=False,
            look=lambda: moments,
        )
    ]


def heads_of(channel_set: ChannelSet) -> Tensor:
    """The head of each pair, (n,)."""
    return torch.zeros(channel_set.size, dtype=torch.long) if channel_set.blocks is None else channel_set.blocks


def fold_pairs(model: nn.Module, channels: Channels, chosen: ChannelSet, kept: Tensor, merge: Merge) -> str:
    """Fold the removed pairs into the queries of the kept ones: W_K ← ZᵀW, the bias likewise; the cut comes later.

    Returns:
        What could not be folded, in words: nothing, "".
    """
    assert chosen.pairs is not None
    layer = channels.layers[chosen.pairs[0]]
    where = channels.local(chosen, layer.weight, layer.write_axis)
    rows = torch.argsort(where)  # row of each pair
    for name in (layer.weight, layer.bias):
        value = parameter(model, name)
        if value is None:
            continue
        new = value.detach().clone()
        new[rows[kept].to(new.device)] = merge.z.to(new).T @ new[rows.to(new.device)]
        assign(model, name, new, channels)
    return ""
