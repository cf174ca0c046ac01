"""compress(): choose the channels to keep, fold the others into their consumers, cut, and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.allocation import ALLOCATIONS, AllocatedSet, AllocationRequest
from core.allocation.base import Sharpness
from core.appraisal import Appraisal
from core.channels import Channels, ChannelSet
from core.config import make_options
from core.criteria import CRITERIA
from core.decompositions import Decomposition
from core.decoupling import plan
from core.errors import ModelError
from core.footprint import Size
from core.graph.packed import pack
from core.graph.trace import as_inputs, separate, twin, undisturbed
from core.merging import Merged, SetReport, merge_set, with_note
from core.plain import plain_torch
from core.prepared import Prepared, Scores, prepare, problem_without
from core.recalibration import recalibrate
from core.refit import Refit, images_at_a_time, refit
from core.request import check_copies, check_labels, check_request, check_widths, mixable
from core.selection import keep
from core.selfcheck import culprits
from core.shelf import Kept, is_ours
from core.surgery import cut, units_gone

__all__ = ["Prepared", "Result", "SetReport", "compress", "prepare"]


@dataclass(frozen=True)
class Result:
    """A compressed network.

    Attributes:
        model: in the training mode that the original was in.
        sites: what happened to each channel set.
        skipped: per layer that was left alone, why, in words.
        notes: what was decided on the way, in words.
        decoupled: layer that became a depthwise and a pointwise one -> how many filters each channel has there.
    """

    model: nn.Module
    sites: tuple[SetReport, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()
    decoupled: Mapping[str, int] = field(default_factory=dict)


@plain_torch()
def compress(
    model: nn.Module | Prepared,
    example_inputs: Any,
    *,
    ratio: float = 0.5,
    criterion: str = "l1",
    decomposition: str = "most-similar",
    options: Mapping[str, Any] | None = None,
    allocation: str = "uniform",
    ratios: Mapping[str, float] | None = None,
    calibration: Tensor | tuple[Tensor, ...] | None = None,
    labels: Tensor | None = None,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    of: Size = "params",
    sharpness: Sharpness = "auto",
    min_channels: int = 1,
    multiple: int = 1,
    copies: int | Literal["auto"] = "auto",
    mirror: bool = True,
    logits: bool = True,
) -> Result:
    """Remove a share of the channels of every channel set and make up for them, without training.

    Args:
        model: the trained network, or what `prepare` made of it; it is never changed.
        example_inputs: inputs the network runs on, (N, C, H, W) or a tuple of arguments; only the shape matters.
        ratio: share of channels removed per set, 0 ≤ ratio < 1; at least one channel stays. For allocation ``budget``
            the share of the whole network's size.
        criterion: which channels stay (a name of `core.criteria`).
        decomposition: what makes up for the others (a name of `core.decompositions`).
        options: the decomposition's own options, for example ``{"threshold": 0.45}``.
        allocation: how the ratio is spread over the sets (a name of `core.allocation`).
        ratios: for allocation ``per-site``: glob pattern of producers → ratio.
        calibration: unlabelled images (N, …) for the methods that look at activations; a tuple for several inputs.
        labels: classes (N,) of the calibration images, for the criteria that learn from them; others never see them.
        sites: glob patterns; only sets with a matching producer are touched, and convolutions of such names decoupled.
            None: all.
        seed: of what is drawn at random.
        of: for allocation ``budget``: the size whose share ``ratio`` goes (``params``, ``macs`` or ``bytes``).
        sharpness: for allocation ``budget``: from 0, all sets alike, to 1, as their errors say, or "auto".
        min_channels: so many stay in every set, if it has them.
        multiple: widths are rounded to multiples of it (down for ``budget``), 8 for GPUs.
        copies: how often each calibration image is seen: as it is, mirrored, and mixed with others
            (`core.calibration.mixtures`); "auto": 4 times where a budget of few small images is refitted, else once.
        mirror: whether mirror images are of use.
        logits: for allocation ``budget``: whether outputs (N, k), k > 1, are logits, of which only differences count.

    Returns:
        A smaller copy of the network, in the training mode the network was in, with a report.

    Raises:
        UsageError: an unknown name, an option or ratio out of bounds, or missing calibration images.
        ModelError: the network cannot be traced, run or compressed.
    """
    method = make_options(decomposition, dict(options or {}))
    count = len(model.channels.graph.inputs if isinstance(model, Prepared) else as_inputs(example_inputs))
    reads = method.needs_calibration or method.bn_recalibrate
    looking = [
        *([criterion] if CRITERIA.get(criterion).needs_calibration else []),
        *([type(method).__name__] if reads else []),
        *([f"allocation {allocation!r}"] if ALLOCATIONS.get(allocation).needs_calibration else []),
    ]
    check_request(ratio, ratios or {}, next(iter(looking), ""), calibration, count)
    check_widths(of, sharpness, min_channels, multiple)
    check_labels(criterion if CRITERIA.get(criterion).needs_labels else "", calibration, labels)
    learned = labels if CRITERIA.get(criterion).needs_labels else None
    check_copies(copies, method, learned)
    prepared = model if isinstance(model, Prepared) else prepare(model, example_inputs)
    if copies != "auto" or (allocation == "budget" and method.sequential and mixable(method, learned)):
        calibration = prepared.extended(calibration, copies, mirror=mirror)
    channels = prepared.channels
    sets = channels.select(tuple(sites) if sites is not None else None)
    left = {p: "not among the chosen sites" for s in channels.sets if s not in sets for p in s.producers}
    scores = [prepared.scores(s, criterion, calibration, seed, labels) for s in sets]
    request = AllocationRequest(
        sets=[AllocatedSet(s.producers, s.size, own.values) for s, own in zip(sets, scores, strict=True)],
        ratio=ratio,
        ratios=ratios or {},
        of=of,
        sharpness=sharpness,
        min_channels=min_channels,
        multiple=multiple,
        appraise=lambda: _appraisal(prepared, sets, scores, criterion, method, calibration, logits=logits),
    )
    shares = ALLOCATIONS.get(allocation).spread(request)
    kept = {
        s.name: keep(channels, s, own.values, share, min_channels, multiple)
        for s, own, share in zip(sets, scores, shares, strict=True)
    }
    with undisturbed(channels.graph.model):
        work, merged, gone, alone = _cut_and_checked(prepared, sets, kept, method, calibration)
        report = tuple(one.report for one in merged)
        parts = plan(work, method.decoupling, prepared.check.inputs, sites)
        if method.sequential:
            parts.truncate(work)  # the refit keeps the ranks
        if calibration is not None:
            work, report = _refitted(work, prepared, gone, method, calibration, merged, parts.terms)
        parts.apply(work)
        _recalibrated(work, channels, method, calibration)
    pack(work, channels.graph.packed)
    for name, module in work.named_modules():
        module.training = prepared.modes.get(name, module.training)
    notes = {s.name: own.note for s, own in zip(sets, scores, strict=True)}
    report = tuple(with_note(one, notes[one.name]) for one in report)
    said = (*request.notes, *filter(None, [parts.note]))
    return Result(work, report, {**channels.skipped, **left, **alone}, said, parts.terms)


def _appraisal(
    prepared: Prepared,
    sets: Sequence[ChannelSet],
    scores: Sequence[Scores],
    criterion: str,
    method: Decomposition,
    calibration: Any,
    *,
    logits: bool,
) -> Appraisal:
    """What removing channels costs under a criterion and a decomposition; found once for all ratios."""
    key = (criterion, tuple(s.name for s in sets), tuple(id(own) for own in scores), method, id(calibration), logits)
    if key not in prepared.appraisals:
        values = [own.values for own in scores]
        known = CRITERIA.get(criterion).cumulative
        curves = [prepared.curve(s, v, calibration, cumulative=known) for s, v in zip(sets, values, strict=True)]
        attempt = partial(_attempt, prepared, sets, method)
        gains = method.merges or method.sequential
        names = [s.name for s in sets]
        what = ("appraisal", criterion, method, tuple(values), calibration, names, *([] if logits else ["values"]))

        def once(make: Callable[[], float], of: str) -> float:
            if not is_ours(type(method)):
                return make()
            kept = prepared.once(lambda: Kept({"value": torch.tensor(make(), dtype=torch.float64)}), *what, of)
            return float(kept.tensors["value"])

        prepared.appraisals[key] = Appraisal(
            prepared.channels, sets, values, curves, attempt, calibration, gains, once, logits
        )
    return prepared.appraisals[key]


def _attempt(
    prepared: Prepared, sets: Sequence[ChannelSet], method: Decomposition, kept: Mapping[str, Tensor], calibration: Any
) -> nn.Module:
    """The network with only the sets cut that are in ``kept``, without a look whether it stands it."""
    channels, cut_sets = prepared.channels, [s for s in sets if s.name in kept]
    with undisturbed(channels.graph.model):
        work = twin(channels.graph.model)
        merged = [merge_set(work, prepared, s, kept[s.name], method, calibration) for s in cut_sets]
        gone = units_gone(cut_sets, kept)
        cut(work, channels, gone)
        found = work
        if method.sequential:
            found = refit(work, channels, gone, method, calibration, _queries(merged)).model
        _recalibrated(found, channels, method, calibration)
    return found


def _cut_and_checked(
    prepared: Prepared,
    sets: Sequence[ChannelSet],
    kept: Mapping[str, Tensor],
    method: Decomposition,
    calibration: Any,
) -> tuple[nn.Module, tuple[Merged, ...], Tensor, dict[str, str]]:
    """Merge, cut and compare with the original; sets that do not stand it are left alone, by producer with the reason.

    Raises:
        ModelError: the network is wrong although no set of channels is to blame.
    """
    channels, check, alone = prepared.channels, prepared.check, dict[str, str]()
    while True:
        full = twin(channels.graph.model)  # parameters are replaced, never written to
        merged = tuple(merge_set(full, prepared, s, kept[s.name], method, calibration) for s in sets)
        gone = units_gone(sets, kept)
        work = twin(full)
        cut(work, channels, gone)
        result = separate(work, channels.graph.model)
        wrong = check.problem(full, work, gone)
        if not wrong:
            return result, merged, gone, alone
        bad = culprits(partial(problem_without, check, kept), sets)
        if not bad:
            raise ModelError(f"{type(work).__name__} cannot be cut like this: {wrong}; leave layers out with sites=")
        alone |= {p: bad[s.name] for s in sets if s.name in bad for p in (*s.producers, *s.channel_wise)}
        sets = [s for s in sets if s.name not in bad]


def _refitted(
    work: nn.Module,
    prepared: Prepared,
    gone: Tensor,
    method: Decomposition,
    calibration: Any,
    merged: tuple[Merged, ...],
    terms: Mapping[str, int],
) -> tuple[nn.Module, tuple[SetReport, ...]]:
    """Refit the cut network as the method wants, and add to the report what each reader has lost."""
    found = refit(work, prepared.channels, gone, method, calibration, _queries(merged), terms)
    return found.model, tuple(_with_losses(one.report, found) for one in merged)


def _queries(merged: Sequence[Merged]) -> dict[str, Tensor]:
    """Layer of queries -> Z (n, k), by which those that stay have become mixtures of all."""
    return dict(one.queries for one in merged if one.queries is not None)


def _recalibrated(model: nn.Module, channels: Channels, method: Decomposition, calibration: Any) -> None:
    """Measure the batch norms of ``model`` anew, if the method wants it, in place."""
    if method.bn_recalibrate:
        recalibrate(model, calibration, method.bn_shrinkage, images_at_a_time(channels, as_inputs(calibration)))


def _with_losses(report: SetReport, found: Refit) -> SetReport:
    names = (*report.channel_wise, *report.consumers)
    lost = {name: found.lost[name] for name in names if name in found.lost}
    return with_note(replace(report, reconstruction=lost), *(found.notes.get(name, "") for name in names))
