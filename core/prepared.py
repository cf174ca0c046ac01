"""What of a network does not depend on a configuration: its channel sets, their signatures and scores, found once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from core.appraisal import Appraisal
from core.calibration.mixtures import copies_for, extended
from core.channels import Channels, ChannelSet, find_channels
from core.criteria import CRITERIA
from core.decompositions.base import ChannelMoments
from core.elimination import eliminate, parts_of
from core.errors import ModelError, first_line
from core.evidence import InputStatistics, scored_set
from core.gradients import LossGradients
from core.graph.trace import as_inputs, twin, undisturbed
from core.plain import plain_torch
from core.seen import seen_moments
from core.selection import keep
from core.selfcheck import SelfCheck, culprits
from core.shelf import Kept, Shelf, digest_of, is_ours, network_digest
from core.signature import Signature
from core.signatures import signatures
from core.surgery import cut, units_gone


@dataclass(frozen=True)
class Scores:
    """A set's scores under a criterion.

    Attributes:
        values: (n,), float64; higher: kept.
        note: what the criterion could not do here, in words.
    """

    values: Tensor
    note: str = ""


@dataclass
class Prepared:
    """A network's channel sets and everything about them that does not depend on the configuration.

    Attributes:
        channels: its channel sets, all of which have been seen to be removable.
        check: compares what is cut with the original.
        modes: for each module whether it is in training mode.
        shelf: keeps what a criterion, a decomposition or an allocation of this package has found out on images.
        appraisals: what removals cost, by what that depends on.
    """

    channels: Channels
    check: SelfCheck
    modes: dict[str, bool]
    shelf: Shelf = field(default_factory=Shelf)
    _signatures: dict[tuple[str, bool], dict[str, Signature]] = field(default_factory=dict)
    _scores: dict[tuple[str, str, int, int, int], Scores] = field(default_factory=dict)
    appraisals: dict[Any, Appraisal] = field(default_factory=dict)
    _statistics: InputStatistics | None = None
    _gradients: LossGradients | None = None
    _calibrations: dict[int, Any] = field(default_factory=dict)
    _extended: dict[tuple[int, int, bool], Tensor] = field(default_factory=dict)
    _digests: dict[int, str] = field(default_factory=dict)

    def signatures(self, channel_set: ChannelSet, *, covariances: bool = False) -> dict[str, Signature]:
        """The set's signatures at its consumers, with assumed covariances if these are asked for, computed once."""
        key = (channel_set.name, covariances)
        if key not in self._signatures:
            self._signatures[key] = signatures(self.channels, channel_set, covariances=covariances)
        return self._signatures[key]

    def seen(self, channel_set: ChannelSet, calibration: Any) -> dict[str, ChannelMoments | None]:
        """Moments of the set's channels at its consumers on images; None where an input cannot be laid out in rows.

        Raises:
            ModelError: the network does not run on these images.
        """

        def look() -> Kept:
            found = seen_moments(self.channels, channel_set, self.statistics_on(calibration))
            known = {name: moments for name, moments in found.items() if moments is not None}
            tensors = {f"mean {name}": moments.mean for name, moments in known.items()}
            return Kept({**tensors, **{f"second {n}": m.second for n, m in known.items()}}, json.dumps(list(found)))

        try:
            kept = self.once(look, "seen", channel_set.name, calibration)
        except (RuntimeError, TypeError) as error:
            shape = tuple(as_inputs(calibration)[0].shape)
            what = f"the network does not run on calibration images of shape {shape}: {first_line(error)}"
            raise ModelError(what) from None
        names, tensors = json.loads(kept.note), kept.tensors
        return {
            name: ChannelMoments(tensors[f"mean {name}"], tensors[f"second {name}"])
            if f"mean {name}" in tensors
            else None
            for name in names
        }

    def extended(self, calibration: Any, copies: int | Literal["auto"], *, mirror: bool) -> Any:
        """The calibration images and their copies, made once (see `core.calibration.mixtures`)."""
        if not isinstance(calibration, Tensor):
            return calibration
        count = copies_for(calibration, copies)
        key = (id(calibration), count, mirror)
        if count > 1 and key not in self._extended:
            self._calibrations[id(calibration)] = calibration  # kept, so that no other images get the same id
            self._extended[key] = extended(calibration, count, mirror=mirror)
        return calibration if count == 1 else self._extended[key]

    def scores(
        self,
        channel_set: ChannelSet,
        criterion: str,
        calibration: Any = None,
        seed: int = 0,
        labels: Tensor | None = None,
    ) -> Scores:
        """The set's scores under a criterion, computed once; with the same images or seed once, where these count.

        Raises:
            UsageError: the criterion looks at what a layer reads, and that cannot be had.
            ModelError: it gives something else than a number for each channel.
        """
        chosen = CRITERIA.get(criterion)
        images = calibration if chosen.needs_calibration else None
        seed = seed if chosen.random else 0
        learned = labels if chosen.needs_labels else None
        key = (channel_set.name, criterion, id(images), id(learned), seed)

        def score() -> Kept:
            gradients = self._gradients_on(images, labels) if chosen.needs_labels else None
            scored = scored_set(self.channels, channel_set, self.statistics_on(images), gradients, seed)
            scores = chosen.score(scored).double().cpu()
            if scores.shape != (channel_set.size,) or bool(scores.isnan().any()):
                what = f"scores {tuple(scores.shape)}" if scores.dim() != 1 else f"{len(scores)} scores, or NaN"
                raise ModelError(
                    f"criterion {criterion!r} gives {what} for {channel_set.name}, a set of {channel_set.size} channels"
                )
            return Kept({"scores": scores}, "; ".join(dict.fromkeys(scored.notes)))

        if key not in self._scores:
            looks = (chosen.needs_calibration or chosen.needs_labels) and is_ours(chosen.score)
            kept = self.once(score, "scores", channel_set.name, criterion, images, learned, seed) if looks else score()
            self._scores[key] = Scores(kept.tensors["scores"], kept.note)
        return self._scores[key]

    def curve(
        self, channel_set: ChannelSet, scores: Tensor, calibration: Any, *, cumulative: bool = False
    ) -> np.ndarray:
        """What the set's readers lose once its 0, 1, … n lowest channels are gone, (n + 1,): 1 for all of one reader.

        Where no reader can be looked at, the share of the scores that is gone. ``cumulative``: the scores are those of
        a criterion that gives such losses of these images itself (see `core.criteria.base.Criterion`).
        """

        def spend() -> Kept:
            consumers = scored_set(self.channels, channel_set, self.statistics_on(calibration)).seen()
            order = scores.argsort(stable=True)
            if consumers and cumulative:
                spent = scores[order]
            elif consumers:
                spent = eliminate(parts_of(consumers), channel_set.size, order)[1]
            else:
                spent = (scores[order].clamp_min(0).cumsum(0) / scores.clamp_min(0).sum().clamp_min(1e-300)).double()
            return Kept({"spent": spent})

        kept = self.once(spend, "curve", channel_set.name, scores, calibration, cumulative)
        return np.concatenate([[0.0], kept.tensors["spent"].numpy()])

    def once(self, make: Callable[[], Kept], *what: Any) -> Kept:
        """What ``make`` gives, or gave before to any process that shares the shelf, for ``what`` on this network."""
        if type(self.shelf) is Shelf:
            return make()
        return self.shelf.once(f"{self._network} {' '.join(map(self._said, what))}", make)

    def _said(self, part: Any) -> str:
        """What a result depends on, in words; of images their digest, which is taken once."""
        if not isinstance(part, (Tensor, tuple)):
            return str(part)
        self._calibrations[id(part)] = part  # kept, so that no other images get the same id
        if id(part) not in self._digests:
            self._digests[id(part)] = digest_of(part)
        return self._digests[id(part)]

    @cached_property
    def _network(self) -> str:
        graph = self.channels.graph
        return network_digest(graph.model, str(graph.traced.graph))

    def _gradients_on(self, calibration: Any, labels: Tensor | None) -> LossGradients:
        """Those of the images and labels that were used last."""
        last = self._gradients
        if last is None or last.calibration is not calibration or last.labels is not labels:
            self._gradients = last = LossGradients(self.channels, calibration, labels)
        return last

    def statistics_on(self, calibration: Any) -> InputStatistics:
        """Those of the images that were used last are kept; they can be large."""
        self._calibrations[id(calibration)] = calibration  # kept, so that no other images get the same id
        if self._statistics is None or self._statistics.calibration is not calibration:
            self._statistics = InputStatistics(self.channels, calibration)
        return self._statistics


@plain_torch()
def prepare(model: nn.Module, example_inputs: Any) -> Prepared:
    """Find the channel sets of ``model``, for several `compress` calls on it.

    Half of all sets is removed once and compared with the original; a set that does not stand it is left alone.

    Raises:
        ModelError: the network cannot be traced or run, or none of its channels can be removed.
    """
    channels = find_channels(model, example_inputs)
    check = SelfCheck(channels)
    if channels.sets:
        with undisturbed(model):
            halves = {s.name: _any_half(channels, s) for s in channels.sets}
            problem = partial(problem_without, check, halves, training=True)
            if problem(channels.sets):
                channels = channels.without(culprits(problem, channels.sets))
    if not channels.sets:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(channels.skipped.items())[:3])
        raise ModelError(f"{type(model).__name__} has no layer whose channels could be removed ({reasons})")
    modes = {name: module.training for name, module in model.named_modules()}
    for name in channels.graph.packed:
        parts = channels.graph.model.get_submodule(name).named_modules(prefix=name)
        modes |= {part: modes[name] for part, _ in parts}
    return Prepared(channels, check, modes)


def require_sites(model: nn.Module, example_inputs: Any, sites: Iterable[tuple[str, ...]]) -> None:
    """Find the channel sets of ``model``, and look whether every pattern that will choose among them matches one.

    Raises:
        ModelError: see `prepare`.
        UsageError: a pattern matches nothing.
    """
    channels = prepare(model, example_inputs).channels
    for patterns in sites:
        channels.select(patterns)


def _any_half(channels: Channels, channel_set: ChannelSet) -> Tensor:
    """Half of a set's channels, drawn at random and always the same."""
    scores = torch.rand(channel_set.size, generator=torch.Generator().manual_seed(channel_set.size))
    return keep(channels, channel_set, scores, 0.5)


def problem_without(
    check: SelfCheck, kept: Mapping[str, Tensor], sets: Sequence[ChannelSet], *, training: bool = False
) -> str:
    """What is wrong when the channels of ``sets`` that are not kept are cut; "" if nothing is."""
    full, gone = twin(check.channels.graph.model), units_gone(sets, kept)
    work = twin(full)
    cut(work, check.channels, gone)
    return check.problem(full, work, gone, training=training)
