"""One session of a sweep: original network, Ray, trials, front, MLflow, in this order.

All that a session needs is in the store, so a sweep that is resumed goes the same way as a new one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from core.config import TrialConfig, TrialRecord
from core.errors import NeuronMergingError, UsageError
from core.trial import run_trial
from search_spaces import SearchSpace
from sweep.backend.cluster import connected
from sweep.backend.execute import execute
from sweep.backend.shared import SharedBench
from sweep.backend.stopping import FAILED, StopRequest, listening
from sweep.backend.workbench import dataset_card, load_baseline, make_bench, measured
from sweep.backend.workqueue import WorkQueue
from sweep.errors import first_line
from sweep.filing import Filing
from sweep.limits import watch_limits
from sweep.reporting.outcome import Outcome, make_outcome
from sweep.reporting.progress import Reporter
from sweep.reporting.telemetry import Telemetry
from sweep.search.planner import LAG, make_planner
from sweep.search.warmstart import WarmStart
from sweep.storage.reader import read_sweep, slim
from sweep.storage.writer import Store
from sweep.tracking import Tracker, TrackingReport
from sweep.tracking.tracker import PATIENCE_SECONDS, Closing
from sweep.tracking.uri import artifacts_of

RUN_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
PACKAGES = ("neuron-merging-sweep", "torch", "ray", "mlflow", "optuna")


@dataclass(frozen=True)
class Finished:
    """How a sweep ended.

    Args:
        outcome: the front, its files, the failures.
        tracking: what came of logging to MLflow.
        stop: its reason is not empty when the sweep ended early.
    """

    outcome: Outcome
    tracking: TrackingReport
    stop: StopRequest

    @property
    def exit_code(self) -> int:
        """0, unless the sweep was broken off or no trial gave a result."""
        nothing = bool(self.outcome.sweep.records) and not self.outcome.info.points
        return self.stop.exit_code or (FAILED if nothing else 0)


class Session:
    """One uninterrupted piece of a sweep's life, from the original network to the closed books.

    Args:
        store: of the sweep, held by this process.
        space: what varies.
        uri: of MLflow, with its credentials.
        reporter: shows how far it is.
    """

    def __init__(self, store: Store, space: SearchSpace, uri: str, reporter: Reporter) -> None:
        self._store, self._space, self._uri, self._reporter = store, space, uri, reporter
        self._stop = StopRequest()
        self._results = store.folder.parent

    def run(self, warm: WarmStart | None = None) -> Finished:
        """Run what is left of the sweep.

        Args:
            warm: results of earlier sweeps that a new one takes over.
        """
        before = read_sweep(self._results, self._store.info.name)
        known = before.records
        self._begin(known)
        if before.torn_lines:
            torn = f"{before.torn_lines} damaged lines in trials.jsonl"
            self._reporter.line(f"{torn} are left out; their trials run again")
        baseline = load_baseline(self._space.baseline, self._results, self._reporter)
        self._require_same(baseline.key)
        card, key = dataset_card(baseline), baseline.key
        self._shared, trial_seconds = measured(make_bench(baseline, hardest=self._store.info.race))
        del baseline  # the driver needs no copy of the data while trials run
        original = dict(self._store.info.original or self._shared.original)
        self._shared = self._shared.with_original(original)
        self._store.update(baseline_key=key, original=original, dataset=asdict(card))
        self._reporter.line(f"{self._space.baseline.model} on {card.name}: {original['accuracy']:.2f} %")
        if warm:
            known += self._take_over(warm, key)
        tracker = Tracker(self._uri, artifacts_of(self._uri, self._results), self._store.info, card)
        for record in known:
            tracker.put(record)
        self._trials(known, trial_seconds, tracker)
        return self._finish(tracker)

    def _begin(self, known: Sequence[TrialRecord]) -> None:
        info, now, found = self._store.info, time.time(), versions()
        again = info.pid != 0
        ended = info.ended_at or max((record.started_at + record.seconds for record in known), default=0.0)
        before = info.model_copy(update={"ended_at": ended}).seconds if again else 0.0
        self._store.update(
            status="running",
            message="",
            pid=os.getpid(),
            host=platform.node(),
            resumed_at=now if again else 0.0,
            ended_at=0.0,
            earlier_seconds=before,
            versions=found,
        )
        verb = f"{len(known)} trials are there" if again else "new"
        self._reporter.line(f"sweep {info.name!r} in {self._store.folder} ({verb})")
        changed = [name for name, text in found.items() if again and info.versions.get(name, text) != text]
        if changed:
            self._reporter.line(f"other versions than before: {', '.join(changed)}; results may differ a little")

    def _require_same(self, baseline_key: str) -> None:
        before = self._store.info.baseline_key
        if before and before != baseline_key:
            raise UsageError(
                f"sweep {self._store.info.name!r} compresses another network: its checkpoint or data have changed since"
                " it began; bring them back, or start a new sweep"
            )

    def _take_over(self, warm: WarmStart, baseline_key: str) -> list[TrialRecord]:
        taken, hints = warm.records_for(baseline_key), warm.hints_for(baseline_key)
        for record in taken:
            self._store.append(record)
        self._store.update(hints=[config.model_dump(mode="json") for config in hints])
        if taken:
            self._reporter.line(f"{len(taken)} results are taken over from {', '.join(warm.names)}")
        if hints:
            self._reporter.line(f"{len(hints)} configurations from the fronts of other networks are tried first")
        return list(map(slim, taken))

    def _hand_over(self) -> SharedBench:
        """What workers share; Ray's object store gets it, and this process keeps none of it."""
        shared = self._shared
        del self._shared
        return shared

    def _trials(self, known: Sequence[TrialRecord], trial_seconds: float, tracker: Tracker) -> None:
        info, stop = self._store.info, self._stop
        lag = info.lag or max(LAG, 2 * (info.cluster.workers or os.cpu_count() or 1))
        hints = [TrialConfig.parse(values) for values in info.hints]
        planner = make_planner(self._space, info.seed, known, lag, hints, info.race)
        self._store.update(total=planner.total, lag=lag)
        if len(known) >= planner.total:
            self._reporter.line("every trial is there already")
            return
        code = (self._space.baseline.model, self._space.baseline.dataset)
        tell = self._reporter.line
        with connected(info.cluster, self._shared.nbytes, code, tell) as workers, listening(stop, tell):
            self._store.update(workers=workers)
            self._reporter.line(f"{planner.total - len(known)} trials ({info.search}) on {workers} workers")
            telemetry = Telemetry(info.name, workers, enabled=info.cluster.address is not None)
            watch_limits(stop, info.limits, self._store.stop_file)
            queue = WorkQueue(
                planner,
                workers,
                Filing(self._store, tracker, self._reporter, telemetry, stop, planner.total, known),
                trial_seconds,
                race=info.race,
                limit=info.limits.trial_seconds,
                known=len(known),
            )
            execute(
                queue,
                self._hand_over(),
                run_trial,
                workers,
                stop,
                info.cluster.gpus_per_trial,
                self._store.live,
            )

    def _finish(self, tracker: Tracker) -> Finished:
        """Close the books: status, front, MLflow, in the order of their importance."""
        store, stop = self._store, self._stop
        store.update(status=stop.status, message=stop.reason, ended_at=time.time())
        sweep = read_sweep(self._results, store.info.name)
        try:
            outcome = make_outcome(sweep)
        except NeuronMergingError as error:
            stop.ask(first_line(error), FAILED)
            outcome = make_outcome(sweep, formats=())
        self._reporter.line("writing the last runs to MLflow")
        patience = PATIENCE_SECONDS / 10 if store.trouble else PATIENCE_SECONDS  # a full disk is MLflow's too, mostly
        ending = Closing(RUN_STATUS[store.info.status], outcome.metrics, outcome.files)
        report = tracker.finish(ending, patience)
        store.update(run_id=report.run_id)
        return Finished(outcome, report, stop)


def versions() -> dict[str, str]:
    """Versions of what decides the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
