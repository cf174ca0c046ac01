"""A network of a sweep made once more from its record, and looked at: it has to reach what the record says.

Its sizes must be the record's. Its accuracy may be one image off, and another score a thousandth: kernels round
otherwise in other memory and on other processors, and now and then a logit tips over.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from core.baselines import Baseline
from core.config import TrialConfig
from core.errors import NeuronMergingError, UsageError
from core.evaluators import Evaluator
from core.records import TimeRecord, TrialRecord
from core.shelf import FolderShelf
from core.timing import TIMED_BATCH, Timing, timing
from core.trial import Made, make_trial, reason_of
from core.workbench import Workbench
from search_spaces import SearchSpace, parse_space
from sweep.backend.workbench import device_beside, load_baseline, make_bench, one_thread
from sweep.reporting.progress import Reporter
from sweep.storage.info import ClusterRequest, resampled
from sweep.storage.layout import STATISTICS
from sweep.storage.reader import StoredSweep

EXACT = ("params", "macs", "bytes")
"""Sizes that have to be the record's."""
ROUNDING = 1e-3
"""Of a score that is not counted image by image, the share by which it may differ."""
GPU_POINTS, RECOVERED_POINTS = 0.3, 2.0
"""Points of accuracy by which a network may differ that was made on a GPU, without a recovery and after one."""


class ExportError(NeuronMergingError):
    """A network cannot be had, or is not what its record says."""


@dataclass(frozen=True)
class Rebuilt:
    """A network that reaches what its record says.

    Attributes:
        record: of the trial.
        made: the network, and how it was made.
        timing: on this machine and one thread: the original's, and the network's.
        score: measured again, in words.
        scored: what it is.
        seconds: that all this took.
    """

    record: TrialRecord
    made: Made
    timing: tuple[Timing, Timing]
    score: str
    scored: Evaluator
    seconds: float

    def timed(self) -> TimeRecord:
        """What was found out of its pace, for the sweep's records."""
        before, after = self.timing
        metrics = {
            "idle_latency_ms": after.one,
            "idle_latency_fraction": after.one / before.one,
            "idle_latency_spread": after.spread,
            "idle_batch_ms": after.batch,
        }
        where = {"host": platform.node(), "device": "cpu", "threads": "1", "torch": torch.__version__}
        began = time.time() - self.seconds
        return TimeRecord(
            key=self.record.key, metrics=metrics, provenance=where, started_at=began, seconds=self.seconds
        )


class Rebuilder:
    """Makes networks of one sweep.

    Args:
        results: folder of all sweeps.
        sweep: as read from there.
        reporter: shows how far it is.
    """

    def __init__(self, results: Path, sweep: StoredSweep, reporter: Reporter) -> None:
        self.sweep = sweep
        self._results, self._reporter = results, reporter
        self._timings = dict[tuple[object, ...], Timing]()

    @cached_property
    def space(self) -> SearchSpace:
        """What the sweep varied, and its original network."""
        request = self.sweep.info.request
        return parse_space(resampled(request), request.name)

    @cached_property
    def baseline(self) -> Baseline:
        """The sweep's original network and its data.

        Raises:
            ExportError: it is gone, or another one than the sweep compressed.
        """
        name = self.sweep.info.name
        try:
            found = load_baseline(self.space.baseline, self._results, self._reporter, may_train=False)
        except NeuronMergingError as error:
            raise ExportError(f"the original network of {name} cannot be had: {error}") from None
        if self.sweep.info.state.baseline_key not in ("", found.key):
            raise ExportError(f"the original network of {name} has changed since; bring the old checkpoint back")
        return found

    @cached_property
    def bench(self) -> Workbench:
        """What the sweep's trials ran on, on the CPU.

        Raises:
            ExportError: see `_working`.
        """
        return self._working if self._working.device == "cpu" else self._working.on("cpu")

    @cached_property
    def _working(self) -> Workbench:
        """The same where networks are made and evaluated: on a GPU, if the sweep's were and there is one.

        Raises:
            ExportError: the original network does not reach on it what it reached when the sweep ran.
        """
        request, original = self.sweep.info.request, self.sweep.info.state.original
        evaluation, scored, sources = self.space.evaluation, self.space.scored, self.space.sources()
        split, autocast = evaluation.split, evaluation.autocast
        hardest, device = request.race, device_beside(request.cluster)
        bench = make_bench(
            self.baseline, split, hardest=hardest, sources=sources, scored=scored, autocast=autocast, device=device
        )
        bench.shelf = FolderShelf(self.sweep.folder / STATISTICS)
        if scored.score.name in original:
            with one_thread():
                found = bench.evaluate(bench.model).metrics
            if differs(found, original, bench, request.cluster):
                raise ExportError(
                    f"the original network of {request.name} reaches {scored.show(found)}, and reached"
                    f" {scored.show(original)} when the sweep ran: its weights or data have changed; bring the old ones"
                    " back"
                )
            bench.original = dict(original)
        return bench

    def rebuild(self, record: TrialRecord) -> Rebuilt:
        """Make the network of ``record`` once more, and compare it.

        Raises:
            ExportError: it cannot be made, or is another one.
            UsageError: the record names something that is not known (any more), or was measured on another split.
        """
        bench = self._working
        if record.split != bench.split:
            raise UsageError(f"trial {record.key} was evaluated on the {record.split} split, the sweep is on another")
        config, clock = parsed(record), time.perf_counter()
        try:
            with one_thread():
                made = make_trial(config, bench)
                found, sizes = bench.evaluate(made.model).metrics, bench.sizes(made.model)
                made.model.cpu()
                timed = (self._timing(self.bench.model), self._timing(made.model))
        except Exception as error:  # whatever a network does that no longer fits
            raise ExportError(f"trial {record.key} cannot be made once more: {reason_of(error)}") from None
        self._require_same(record, found, sizes)
        return Rebuilt(
            record, made, timed, self.space.scored.show(found), self.space.scored, time.perf_counter() - clock
        )

    def _timing(self, model: nn.Module) -> Timing:
        """How fast a network is; those of the same shapes are equally fast, and measured once."""
        shapes = tuple((name, tensor.shape) for name, tensor in model.state_dict().items())
        if shapes not in self._timings:
            self._timings[shapes] = timing(model, self.bench.some(TIMED_BATCH))
        return self._timings[shapes]

    def _require_same(self, record: TrialRecord, reached: Mapping[str, float], sizes: Mapping[str, float]) -> None:
        metrics, scored = record.metrics, self.space.scored
        wrong = [name for name in EXACT if name in metrics and sizes[name] != metrics[name]]
        cluster = self.sweep.info.request.cluster
        if not wrong and not differs(reached, metrics, self.bench, cluster, recovered=bool(record.recovery)):
            return
        found, wanted = scored.show(reached), scored.show(metrics)
        for name in wrong[:1]:
            found, wanted = f"{found}, {sizes[name]:,.0f} {name}", f"{wanted}, {metrics[name]:,.0f} {name}"
        raise ExportError(
            f"trial {record.key} made once more gives {found}, and its record says {wanted}: the weights, the data or"
            " the release have changed; nothing is written"
        )


def differs(
    found: Mapping[str, float],
    wanted: Mapping[str, float],
    bench: Workbench,
    cluster: ClusterRequest,
    *,
    recovered: bool = False,
) -> bool:
    """Whether two scores are further apart than the same network's can be.

    Accuracies (percent) may be one image apart, other scores a rounding. A GPU adds up in another order each time, and
    rounds convolutions in its own way, so where workers had one more is allowed: `GPU_POINTS`, and `RECOVERED_POINTS`
    after a recovery, whose steps make more of it.
    """
    name, scored = bench.scored.score.name, bench.scored
    allowed = 100 / bench.total + 1e-6 if scored.by_image else ROUNDING * abs(wanted[name]) + 1e-9
    if cluster.gpus_per_trial > 0:
        points = RECOVERED_POINTS if recovered else GPU_POINTS
        allowed += points if scored.by_image else points / 100 * abs(wanted[name])
    return abs(found[name] - wanted[name]) > allowed


def parsed(record: TrialRecord) -> TrialConfig:
    """What a trial was asked to do, to be done once more.

    Raises:
        UsageError: this release understands it otherwise, or not at all.
    """
    config = TrialConfig.parse(record.config, where=f"trial {record.key}: ")
    if config.key != record.key:
        raise UsageError(f"trial {record.key} is of a release whose configurations mean something else: use that one")
    return config
