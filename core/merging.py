"""One channel set: its removed channels folded into each of its consumers, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from core.channels import Channels, ChannelSet
from core.decompositions import Decomposition
from core.decompositions.base import ChannelMoments, Merge, between, plain, removed
from core.pairs import Drawn, fold_pairs
from core.prepared import Prepared
from core.signature import Signature
from core.surgery import fold, parameter, replace_rows, squared_norms


@dataclass(frozen=True)
class SetReport:
    """What happened to one channel set.

    Attributes:
        name: the set's, that of its first producer.
        producers: names of the layers that write the channels.
        consumers: names of the layers that read them.
        channel_wise: names of the depthwise layers that carry them.
        size: how many channels there were.
        kept: indices (k,) of the kept channels among the set's ``size``.
        merged: how many removed channels were carried by others.
        cosine: mean cosine between a removed channel and its nearest kept one, at the first consumer (nan if none).
        reconstruction: with calibration images, per reader, the share of its outputs' variance lost (0 = none).
        approximate: operations on the way that make merging approximate; empty where it is exact.
        note: anything the method could not do here, in words.
    """

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channel_wise: tuple[str, ...]
    size: int
    kept: tuple[int, ...]
    merged: int = 0
    cosine: float = float("nan")
    reconstruction: dict[str, float] = field(default_factory=dict)
    approximate: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def of(cls, chosen: ChannelSet, kept: Tensor) -> SetReport:
        """The report of a set whose channels ``kept`` (k,) stay and whose others are removed."""
        return cls(
            name=chosen.name,
            producers=chosen.producers,
            consumers=chosen.consumers,
            channel_wise=chosen.channel_wise,
            size=chosen.size,
            kept=tuple(kept.tolist()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        own = {**vars(self), "reconstruction": dict(self.reconstruction)}
        return {**own, "cosine": None if self.cosine != self.cosine else self.cosine}


def with_note(report: SetReport, *notes: str) -> SetReport:
    """The report with more notes; what is said already is not said again."""
    return replace(report, note="; ".join(dict.fromkeys(filter(None, [report.note, *notes]))))


@dataclass(frozen=True)
class Merged:
    """What became of a set before the cut; of pairs (`core.pairs`) also the queries' layer and Z (n, k), if folded."""

    report: SetReport
    queries: tuple[str, Tensor] | None = None


def merge_set(
    work: nn.Module, prepared: Prepared, chosen: ChannelSet, kept: Tensor, method: Decomposition, calibration: Any
) -> Merged:
    """Fold a set's removed channels into each of its consumers in ``work``, and report."""
    channels = prepared.channels
    plainly = SetReport.of(chosen, kept)
    if len(kept) == chosen.size or not method.merges:
        return Merged(plainly)
    found = prepared.signatures(chosen, covariances=method.needs_covariance)
    note = ""
    if type(method).for_set is not Decomposition.for_set:  # else it is the same for all sets
        method, note = method.for_set(single=_is_single(channels, chosen, found))
    if chosen.pairs is not None and method.sequential:
        method = Drawn(start=method)
    seen = prepared.seen(chosen, calibration) if method.needs_moments else {}
    merges = {name: merge_in_blocks(method, s, kept, chosen.blocks, seen.get(name)) for name, s in found.items()}
    if chosen.pairs is not None:
        rest = [fold_pairs(work, channels, chosen, kept, merge) for merge in merges.values()]
    else:
        rest = [fold(work, channels, chosen, channels.layers[name], kept, merge) for name, merge in merges.items()]
    first = next(iter(merges.values()))
    if first.rows is not None:
        replace_rows(work, channels, chosen, kept, first.rows)
    gone = removed(chosen.size, kept)
    report = replace(
        plainly,
        merged=int((first.z != 0).any(dim=1)[gone].sum()),
        cosine=mean_cosine(next(iter(found.values())), gone, kept),
        approximate=tuple(dict.fromkeys([*(op for s in found.values() for op in s.approximate), *filter(None, rest)])),
        note="; ".join([*filter(None, [note]), *(f"{name}: {m.note}" for name, m in merges.items() if m.note)]),
    )
    return Merged(report, None if chosen.pairs is None else (chosen.pairs[0], first.z))


def _is_single(channels: Channels, chosen: ChannelSet, found: Mapping[str, Signature]) -> bool:
    """Whether a set has one producer with one row and a bias of its own per channel, and nothing in between."""
    layer = channels.layers[chosen.name]
    weight = parameter(channels.graph.model, layer.weight)
    assert weight is not None
    one_row = weight.shape[layer.write_axis] == chosen.size
    own_bias = layer.bias not in channels.graph.shared
    if len(chosen.producers) > 1 or chosen.channel_wise or chosen.blocks is not None or not (one_row and own_bias):
        return False
    squares = next(iter(found.values())).remember("squared norms", lambda: squared_norms(channels, chosen))
    return all(torch.allclose(s.gram.diagonal(), squares, rtol=1e-4, atol=1e-12) for s in found.values())


def merge_in_blocks(
    method: Decomposition,
    signature: Signature,
    kept: Tensor,
    blocks: Tensor | None,
    seen: ChannelMoments | None = None,
) -> Merge:
    """Merge within each block of channels: a grouped consumer cannot read a channel of another group."""
    if blocks is None:
        return method.merge_seen(signature, kept, seen)
    whole, note = plain(len(blocks), kept), ""
    for block in range(int(blocks.max()) + 1):
        own, column = (blocks == block).nonzero().flatten(), (blocks[kept] == block).nonzero().flatten()
        inside = None if seen is None else seen.take(own)
        part = method.merge_seen(signature.take(own), torch.searchsorted(own, kept[column]), inside)
        whole.z[own[:, None], column] = part.z
        whole.offset[own] = part.offset
        note = note or part.note
    return replace(whole, note=note)


def mean_cosine(signature: Signature, gone: Tensor, kept: Tensor) -> float:
    """Mean over removed channels of the cosine to the nearest kept one."""
    length = signature.gram.diagonal().clamp_min(1e-300).sqrt()
    cosine = between(signature.gram, gone, kept).div_(length[kept]).amax(dim=1) / length[gone]
    return float(cosine.mean())
