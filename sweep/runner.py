"""One sweep from its search space to its front: store, baseline, Ray, MLflow, in this order.

The results store gets every record first; progress and MLflow hear of it afterwards and cannot stop it. A sweep that is
resumed goes the same way: all that a session needs is in the store.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.config import TrialConfig, TrialRecord
from core.errors import NeuronMergingError, UsageError
from core.trial import run_trial
from search_spaces import SearchSpace, parse_space
from sweep.bench import dataset_card, load_baseline, make_bench, measured
from sweep.cluster import ClusterRequest, check_request, connected
from sweep.errors import first_line
from sweep.execute import execute
from sweep.info import Limits, Meter, SweepInfo
from sweep.limits import Front, Plateau, watch_limits
from sweep.outcome import Outcome, make_outcome
from sweep.planner import LAG, make_planner
from sweep.progress import Reporter
from sweep.racing import check_race
from sweep.shared import SharedBench
from sweep.stopping import FAILED, Stopped, StopRequest, listening
from sweep.store import Store, create_store, open_store, remove_empty
from sweep.stored import read_sweep
from sweep.telemetry import Telemetry
from sweep.tracking import Tracker, TrackingReport, check_tracking, default_uri, redact
from sweep.tracking.tracker import PATIENCE_SECONDS, Closing
from sweep.tracking.uri import SERVERS, artifact_root, uri_of
from sweep.warmstart import WarmStart
from sweep.workqueue import WorkQueue

RUN_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
PACKAGES = ("neuron-merging-sweep", "torch", "ray", "mlflow", "optuna")


@dataclass(frozen=True)
class RunRequest:
    """Everything that ``sweep run`` was asked for.

    Args:
        space: what varies, with its search; overrides are in it.
        results: folder of all sweeps.
        name: of the sweep; None: after the space.
        seed: of the search's random draws.
        cluster: workers and where they run.
        tracking_uri: of MLflow; None: the embedded store.
        race: stop a trial as soon as it is certain to be beaten.
        limits: what ends the sweep or a trial early.
        warm_start: earlier sweeps to learn from.
    """

    space: SearchSpace
    results: Path
    name: str | None = None
    seed: int = 0
    cluster: ClusterRequest = field(default_factory=ClusterRequest)
    tracking_uri: str | None = None
    race: bool = False
    limits: Limits = field(default_factory=Limits)
    warm_start: Sequence[str] = ()


@dataclass(frozen=True)
class ResumeRequest:
    """Everything that ``sweep resume`` was asked for; None: as before.

    Args:
        results: folder of all sweeps.
        name: of the sweep.
        cluster: workers and where they run.
        tracking_uri: of MLflow.
        limits: what ends the sweep or a trial early.
        samples: how many configurations the whole sweep tries.
    """

    results: Path
    name: str
    cluster: ClusterRequest | None = None
    tracking_uri: str | None = None
    limits: Limits | None = None
    samples: int | None = None


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


def run_sweep(request: RunRequest, reporter: Reporter) -> Finished:
    """Run a sweep to its end, or to a stop that was asked for, and return what came of it.

    Raises:
        NeuronMergingError: it cannot start, or nothing can be stored.
    """
    check_request(request.cluster)
    if request.race:
        check_race(request.space.search)
    uri = request.tracking_uri or default_uri(request.results)
    if request.tracking_uri:
        check_tracking(uri)
    warm = WarmStart.read(request.space, request.results, request.warm_start)
    store = create_store(request.results, request.name, lambda name: first_info(request, name, uri), request.space.name)
    with closing(store):
        return Session(store, request.space, uri, reporter).run(warm)


def resume_sweep(request: ResumeRequest, reporter: Reporter) -> Finished:
    """Go on with a sweep that ended early, wherever it was.

    Raises:
        NeuronMergingError: there is no such sweep, it is running, or it cannot start.
    """
    store = open_store(request.results, request.name)
    with closing(store):
        info = store.info
        changes = {"cluster": request.cluster, "limits": request.limits}
        document = resampled(info, request.samples)
        space = parse_space(document, info.name)
        uri = request.tracking_uri or uri_of(info.tracking_uri, request.results)
        store.update(
            **{name: value for name, value in changes.items() if value is not None},
            resolved=document,
            samples=space.search.samples,
            tracking_uri=redact(uri),
        )
        check_request(store.info.cluster)
        if uri.startswith(SERVERS):
            check_tracking(uri)
        return Session(store, space, uri, reporter).run()


@contextlib.contextmanager
def closing(store: Store) -> Iterator[None]:
    """Leave the store in order, whatever happens; one without any trial is taken away."""
    try:
        yield
    except BaseException as error:
        if not remove_empty(store) and store.info.status == "running":
            broken_off = isinstance(error, KeyboardInterrupt | Stopped)
            store.update(
                status="interrupted" if broken_off else "failed", message=first_line(error), ended_at=time.time()
            )
        raise
    finally:
        store.close()


def resampled(info: SweepInfo, samples: int | None) -> dict[str, object]:
    """The resolved space of a sweep, with another number of configurations."""
    if samples is None:
        return info.resolved
    search = {**info.resolved.get("search", {}), "samples": samples}
    return {**info.resolved, "search": search}


def first_info(request: RunRequest, name: str, uri: str) -> SweepInfo:
    """What is known of a sweep before it starts."""
    search = request.space.search
    return SweepInfo(
        name=name,
        space=request.space.name,
        resolved=request.space.document,
        search=search.algorithm,
        samples=search.samples,
        seed=request.seed,
        total=request.space.planned(),
        race=request.race,
        limits=request.limits,
        cluster=request.cluster,
        started_at=time.time(),
        tracking_uri=redact(uri),
    )


def versions() -> dict[str, str]:
    """Versions of what decides the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


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
        known = read_sweep(self._results, self._store.info.name).records
        self._begin(known)
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
        artifacts = None if self._uri.startswith(SERVERS) else artifact_root(self._results)
        tracker = Tracker(self._uri, artifacts, self._store.info, card)
        for record in known:
            tracker.put(record)
        self._trials(known, trial_seconds, tracker)
        return self._finish(tracker)

    def _begin(self, known: Sequence[TrialRecord]) -> None:
        info, now = self._store.info, time.time()
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
            versions=versions(),
        )
        verb = f"{len(known)} trials are there" if again else "new"
        self._reporter.line(f"sweep {info.name!r} in {self._store.folder} ({verb})")
        changed = [name for name, text in versions().items() if again and info.versions.get(name, text) != text]
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
        return taken

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
            stop.ask(str(error), FAILED)
            outcome = make_outcome(sweep, formats=())
        self._reporter.line("writing the last runs to MLflow")
        patience = PATIENCE_SECONDS / 10 if store.trouble else PATIENCE_SECONDS  # a full disk is MLflow's too, mostly
        ending = Closing(RUN_STATUS[store.info.status], outcome.metrics, outcome.files)
        report = tracker.finish(ending, patience)
        store.update(run_id=report.run_id)
        return Finished(outcome, report, stop)


class Filing:
    """What happens to a record as soon as it is there: it is stored, logged, counted and shown.

    Args:
        store: gets it first.
        tracker: for MLflow.
        reporter: shows the progress.
        telemetry: for a cluster's metrics.
        stop: is asked for the end when the disk is full or the front has stopped growing.
        total: number of trials in the end.
        known: records that are stored already; they count as progress only.
    """

    def __init__(
        self,
        store: Store,
        tracker: Tracker,
        reporter: Reporter,
        telemetry: Telemetry,
        stop: StopRequest,
        total: int,
        known: Sequence[TrialRecord],
    ) -> None:
        self._store, self._tracker, self._stop = store, tracker, stop
        self._reporter, self._telemetry = reporter, telemetry
        self._meter, self._front = Meter(total), Front(known)
        for record in known:
            self._meter.add(record)
        patience = store.info.limits.plateau
        self._plateau = Plateau(patience, self._front.volume) if patience else None

    def __call__(self, record: TrialRecord) -> None:
        """File a new record."""
        self._store.append(record)
        self._tracker.put(record)
        self._meter.add(record)
        self._front.add(record)
        self._show()
        if self._store.trouble:
            self._stop.ask(self._store.trouble, FAILED)
        if self._plateau and self._plateau.reached(self._front.volume):
            self._stop.ask(f"the front has not grown for {self._plateau.patience} trials")

    def _show(self) -> None:
        progress = self._meter.progress(time.time())
        self._reporter.trials(progress)
        self._telemetry.update(progress, lambda: self._front.volume, last=progress.done >= progress.total)
