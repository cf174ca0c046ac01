"""One sweep from its search space to its front: store, baseline, Ray, MLflow, in this order.

The results store gets every record first; progress and MLflow hear of it afterwards and cannot stop it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.config import TrialRecord
from core.errors import NeuronMergingError
from core.trial import Workbench, run_trial
from search_spaces import SearchSpace
from sweep.bench import dataset_card, load_baseline, make_bench, one_thread
from sweep.cluster import ClusterRequest, check_request, connected
from sweep.errors import first_line
from sweep.execute import execute
from sweep.info import Meter, Status, SweepInfo
from sweep.outcome import Outcome, make_outcome
from sweep.planner import make_planner
from sweep.progress import Reporter
from sweep.shared import SharedBench, share
from sweep.stopping import FAILED, INTERRUPTED, TERMINATED, StopRequest, listening
from sweep.store import Store, create_store, remove_empty
from sweep.stored import read_sweep
from sweep.tracking import Tracker, TrackingReport, check_tracking, default_uri, redact
from sweep.tracking.tracker import Closing
from sweep.tracking.uri import SERVERS, artifact_root
from sweep.workqueue import WorkQueue

STATUS: dict[int, Status] = {0: "finished", INTERRUPTED: "interrupted", TERMINATED: "interrupted", FAILED: "failed"}
RUN_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
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
    """

    space: SearchSpace
    results: Path
    name: str | None = None
    seed: int = 0
    cluster: ClusterRequest = field(default_factory=ClusterRequest)
    tracking_uri: str | None = None


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
        """0, unless the sweep ended early or no trial gave a result."""
        nothing = bool(self.outcome.sweep.records) and not self.outcome.info.points
        return self.stop.exit_code or (FAILED if nothing else 0)


def run_sweep(request: RunRequest, reporter: Reporter) -> Finished:
    """Run a sweep to its end, or to a stop that was asked for, and return what came of it.

    Raises:
        NeuronMergingError: it cannot start, or nothing can be stored.
    """
    check_request(request.cluster)
    uri = request.tracking_uri or default_uri(request.results)
    if request.tracking_uri:
        check_tracking(uri)
    store = create_store(request.results, request.name, lambda name: first_info(request, name, uri), request.space.name)
    try:
        return _run(request, uri, store, reporter)
    except BaseException as error:
        if not remove_empty(store) and store.info.status == "running":
            status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            store.update(status=status, message=first_line(error), ended_at=time.time())
        raise
    finally:
        store.close()


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
        pid=os.getpid(),
        host=platform.node(),
        started_at=time.time(),
        versions=versions(),
        tracking_uri=redact(uri),
    )


def versions() -> dict[str, str]:
    """Versions of what decides the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _run(request: RunRequest, uri: str, store: Store, reporter: Reporter) -> Finished:
    reporter.line(f"sweep {store.info.name!r} in {store.folder}")
    baseline = load_baseline(request.space.baseline, request.results, reporter)
    shared, trial_seconds = measured(make_bench(baseline))
    store.update(baseline_key=baseline.key, original=dict(shared.original))
    reporter.line(f"{request.space.baseline.model} on {baseline.dataset.name}: {shared.original['accuracy']:.2f} %")
    artifacts = None if uri.startswith(SERVERS) else artifact_root(request.results)
    tracker = Tracker(uri, artifacts, store.info, dataset_card(baseline))
    stop = StopRequest()
    with connected(request.cluster, shared.nbytes) as workers, listening(stop, reporter.line):
        _trials(request, store, shared, trial_seconds, workers, stop, tracker, reporter)
    return _finish(store, tracker, stop, reporter)


def measured(bench: Workbench) -> tuple[SharedBench, float]:
    """Take the bench apart for sharing; with the seconds that evaluating the original network takes one thread."""
    started = time.perf_counter()
    with one_thread():
        return share(bench), time.perf_counter() - started


def _trials(
    request: RunRequest,
    store: Store,
    shared: SharedBench,
    trial_seconds: float,
    workers: int,
    stop: StopRequest,
    tracker: Tracker,
    reporter: Reporter,
) -> None:
    planner = make_planner(request.space, request.seed, workers=workers)
    store.update(total=planner.total, workers=workers)
    reporter.line(f"{planner.total} trials ({store.info.search}) on {workers} workers")
    meter = Meter(planner.total)

    def on_record(record: TrialRecord) -> None:
        store.append(record)
        tracker.put(record)
        meter.add(record)
        reporter.trials(meter.progress(time.time()))
        if store.trouble:
            stop.ask(store.trouble, FAILED)

    queue = WorkQueue(planner, workers, on_record, trial_seconds)
    execute(queue, shared, run_trial, workers, stop, request.cluster.gpus_per_trial)


def _finish(store: Store, tracker: Tracker, stop: StopRequest, reporter: Reporter) -> Finished:
    """Close the books: status, front, MLflow, in the order of their importance."""
    store.update(status=STATUS[stop.exit_code], message=stop.reason, ended_at=time.time())
    sweep = read_sweep(store.folder.parent, store.info.name)
    try:
        outcome = make_outcome(sweep)
    except NeuronMergingError as error:
        stop.ask(str(error), FAILED)
        outcome = make_outcome(sweep, formats=())
    reporter.line("writing the last runs to MLflow")
    report = tracker.finish(Closing(RUN_STATUS[store.info.status], outcome.metrics, outcome.files))
    store.update(run_id=report.run_id)
    return Finished(outcome, report, stop)
