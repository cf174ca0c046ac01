"""One session of a sweep: original network, Ray, trials, front, MLflow, in this order.

All that a session needs is in the store, so a sweep that is resumed goes the same way as a new one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from core.config import TrialConfig
from core.errors import NeuronMergingError, UsageError
from core.evaluators import function_of
from core.preprocessing import described
from core.records import EvalSplit, TrialRecord
from core.shelf import FolderShelf
from core.workbench import Workbench
from search_spaces import SearchSpace
from search_spaces.algorithms import GRID
from sweep.backend.cluster import connected
from sweep.backend.execute import execute
from sweep.backend.shared import SharedBench, share
from sweep.backend.shelf import place_shelf
from sweep.backend.start import budget_hints
from sweep.backend.stopping import FAILED, StopRequest, breaking_off, insisting, listening
from sweep.backend.workbench import (
    dataset_card,
    device_beside,
    idle_gpu,
    leave_to_workers,
    load_baseline,
    make_bench,
    measured,
    one_thread,
    remarks,
)
from sweep.backend.worker import Work
from sweep.backend.workqueue import WorkQueue
from sweep.errors import StoppedError, first_line
from sweep.export.models import log_models, make_models
from sweep.export.rebuild import Rebuilder, differs
from sweep.filing import Filing, fronts_of, lacking_test
from sweep.limits import watch_limits
from sweep.reporting.finished import Finished, commands
from sweep.reporting.outcome import make_outcome
from sweep.reporting.progress import Reporter
from sweep.reporting.report import write_report
from sweep.reporting.status import unread
from sweep.reporting.telemetry import Telemetry
from sweep.search.base import LAG, Plan, make_planner
from sweep.search.warmstart import WarmStart
from sweep.storage.address import place
from sweep.storage.info import TRAINING, SweepRequest
from sweep.storage.layout import REPORT, STATISTICS
from sweep.storage.reader import StoredSweep, read_sweep, slim
from sweep.storage.writer import Store
from sweep.tracking import Tracker, TrackingReport
from sweep.tracking.summary import Ending, Front
from sweep.tracking.tracker import PATIENCE_SECONDS
from sweep.tracking.uri import artifacts_of
from sweep.tracking.view import RUN_STATUS, DatasetCard

PACKAGES = ("neuron-merging-sweep", "torch", "ray", "mlflow", "optuna")


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

    @property
    def _request(self) -> SweepRequest:
        return self._store.info.request

    def run(self, warm: WarmStart | None = None) -> Finished:
        """Run what is left of the sweep.

        Args:
            warm: results of earlier sweeps that a new one takes over.

        Raises:
            NeuronMergingError: it cannot start, or nothing can be stored.
        """
        before = read_sweep(self._results, self._store.info.name)
        known = before.records
        self._begin(known)
        for line in (*left_out(before), *idle_gpu(self._request.cluster)):
            self._reporter.line(line)
        if self._space.scored.own:
            function_of(self._space.scored)  # before anything is trained
        sites = () if known else self._space.sites()  # one that has begun goes on as it did
        with insisting() as again:
            note, device = partial(self._training, again), device_beside(self._request.cluster)
            baseline = load_baseline(
                self._space.baseline, self._results, self._reporter, note=note, sites=sites, device=device
            )
        self._store.save(replace(self._store.state, message=""))
        split = self._space.evaluation.split
        card = dataset_card(baseline, split)
        self._require_same(baseline.key, card)
        for line in remarks(baseline, split):
            self._reporter.line(line)
        sources = self._space.sources()
        scored = self._space.scored
        made = make_bench(
            baseline,
            split,
            hardest=self._request.race,
            sources=sources,
            scored=scored,
            autocast=self._space.evaluation.autocast,
            device=device,
        )
        bench, trial_seconds = measured(made)
        key, how = baseline.key, "" if baseline.trained_here else f" ({described(baseline.dataset)})"
        del baseline  # the driver needs no copy of the data while trials run
        at_first = self._store.state.original
        if known and scored.score.name in at_first and differs(bench.original, at_first, bench, self._request.cluster):
            self._reporter.line(
                f"warning: the original network reaches {scored.show(bench.original)}, and {scored.show(at_first)} when"
                " the sweep began: its weights have changed, and trials of before and of now are of different networks"
            )
        original = {**bench.original, **at_first}
        hints = self._first_tries(bench, known)
        shared = share(replace(bench, original=original))
        self._shared = shared if self._request.cluster.address is None else shared.carried()
        leave_to_workers(device)
        self._store.save(replace(self._store.state, baseline_key=key, original=original, dataset=asdict(card)))
        reached = ", ".join(filter(None, [scored.show(original), self._store.info.precision]))
        if scored.word != "accuracy":
            reached = f"scored by {scored.label}, {reached}"
        self._reporter.line(f"{self._space.baseline.model} on {card.name}: {reached} on {split}{how}")
        if warm:
            taken, more = self._take_over(warm, key, split)
            known, hints = known + taken, more + hints
        if hints:
            self._store.save(replace(self._store.state, hints=[config.as_json() for config in hints]))
        tracker = Tracker(self._uri, artifacts_of(self._uri, self._results), self._store.info, card)
        for record in known:
            tracker.put(record)
        self._trials(known, before.tested, trial_seconds, tracker)
        return self._finish(tracker)

    def _begin(self, known: Sequence[TrialRecord]) -> None:
        state, now, found = self._store.state, time.time(), versions()
        again = state.pid != 0
        ended = state.ended_at or max((record.started_at + record.seconds for record in known), default=0.0)
        self._store.save(
            replace(
                state,
                status="running",
                message="",
                pid=os.getpid(),
                host=platform.node(),
                resumed_at=now if again else 0.0,
                ended_at=0.0,
                earlier_seconds=replace(state, ended_at=ended).seconds if again else 0.0,
                versions=found,
            )
        )
        verb = f"{len(known)} trials are there" if again else "new"
        self._reporter.line(f"sweep {self._request.name!r} in {self._store.folder} ({verb})")
        changed = [name for name, text in found.items() if again and state.versions.get(name, text) != text]
        if changed:
            self._reporter.line(f"other versions than before: {', '.join(changed)}; results may differ a little")

    def _training(self, interrupted: Callable[[], None], text: str) -> None:
        """Say on disk, for other commands, that the original network is being trained; end where one wants that.

        Raises:
            StoppedError: somebody does.
            KeyboardInterrupt: ``interrupted`` says so.
        """
        interrupted()
        if self._store.stop_file.exists():
            raise StoppedError(
                "stopped while the original network is trained; the same command goes on after the last epoch kept"
            )
        self._store.save(replace(self._store.state, message=f"{TRAINING}, {text}"))

    def _require_same(self, baseline_key: str, card: DatasetCard) -> None:
        state = self._store.state
        before = (state.baseline_key or baseline_key, state.dataset.get("digest", card.digest))
        if before != (baseline_key, card.digest):
            raise UsageError(
                f"sweep {self._request.name!r} compresses another network: its checkpoint or data have changed since"
                " it began; bring them back, or start a new sweep"
            )

    def _first_tries(self, bench: Workbench, known: Collection[TrialRecord]) -> list[TrialConfig]:
        """What a new search begins with, where its space says so."""
        if known or self._store.state.hints or not self._space.search.start:
            return []
        with one_thread():
            hints = budget_hints(self._space, replace(bench, shelf=FolderShelf(self._store.folder / STATISTICS)))
        self._reporter.line(f"{len(hints)} configurations that budgets of several sizes give are tried first")
        return hints

    def _take_over(
        self, warm: WarmStart, baseline_key: str, split: EvalSplit
    ) -> tuple[list[TrialRecord], list[TrialConfig]]:
        taken, hints = warm.records_for(baseline_key, split), warm.hints_for(baseline_key, split)
        for record in taken:
            self._store.append(record)
        if taken:
            self._reporter.line(f"{len(taken)} results are taken over from {', '.join(warm.names)}")
        if hints:
            self._reporter.line(f"{len(hints)} configurations from the fronts of other networks are tried first")
        return list(map(slim, taken)), hints

    def _trials(
        self, known: Sequence[TrialRecord], tested: Collection[str], trial_seconds: float, tracker: Tracker
    ) -> None:
        request, state, stop, tell = self._request, self._store.state, self._stop, self._reporter.line
        lag = state.lag or max(LAG, 2 * (request.cluster.workers or os.cpu_count() or 1))
        hints = [TrialConfig.parse(values) for values in state.hints]
        planner = make_planner(Plan(self._space, request.seed, known, lag, hints, request.race))
        self._store.save(replace(state, total=planner.total, lag=lag))
        has_test = self._shared.has_test
        score = self._space.scored.score
        if len(known) >= planner.total and not (has_test and lacking_test(fronts_of(known, score), tested, score.name)):
            more = ": its grid has no more" if self._space.search.algorithm == GRID else ""
            tell(f"every trial is there already{more}")
            return
        code = (self._space.baseline.model, self._space.baseline.dataset, self._space.evaluation.evaluator)
        with connected(request.cluster, self._shared.nbytes, code, tell) as workers, listening(stop, tell):
            self._store.save(replace(self._store.state, workers=workers))
            tell(f"{planner.total - len(known)} trials ({request.search}) on {workers} workers")
            telemetry = Telemetry(request.name, workers, enabled=request.cluster.address is not None)
            filing = Filing(self._store, tracker, self._reporter, telemetry, stop, planner.total, known, tested)
            watch_limits(stop, request.limits, self._store.stop_file)
            queue = WorkQueue(
                planner,
                workers,
                filing,
                trial_seconds,
                race=request.race,
                limit=request.limits.trial_seconds,
                known=len(known),
                last=filing.untested if has_test else None,
            )
            shelf = place_shelf(self._store.folder / STATISTICS, elsewhere=request.cluster.address is not None)
            execute(
                queue,
                replace(self._hand_over(), shelf=shelf),
                Work(),
                workers,
                stop,
                request.cluster.gpus_per_trial,
                self._store.live,
            )

    def _hand_over(self) -> SharedBench:
        """What workers share; Ray's object store gets it, and this process keeps none of it."""
        shared = self._shared
        del self._shared
        return shared

    def _finish(self, tracker: Tracker) -> Finished:
        """Close the books: status, front, MLflow, networks, in the order of their importance."""
        store, stop = self._store, self._stop
        store.save(replace(store.state, status=stop.status, message=stop.reason, ended_at=time.time()))
        sweep = read_sweep(self._results, store.info.name)
        try:
            outcome = make_outcome(sweep)
            outcome = replace(outcome, files=(*outcome.files, write_report([sweep], store.folder / REPORT)))
        except NeuronMergingError as error:
            stop.ask(first_line(error), FAILED)
            outcome = make_outcome(sweep, formats=())
        self._reporter.line("writing the last runs to MLflow")
        patience = PATIENCE_SECONDS / 10 if store.trouble else PATIENCE_SECONDS  # a full disk is MLflow's too, mostly
        front = Front(outcome.front, commands(sweep, self._results))
        ending = Ending(RUN_STATUS[store.info.status], outcome.metrics, outcome.files, front, store.info)
        report = tracker.finish(ending, patience)
        store.save(replace(store.state, run_id=report.run_id))
        if not (self._request.models and self._in_order):
            return Finished(outcome, report, stop.reason, stop.exit_code)
        code, failed = self._write_models(report)
        with contextlib.suppress(NeuronMergingError):  # with the latencies that the networks have alone
            outcome = replace(outcome, sweep=read_sweep(self._results, store.info.name))
            write_report([outcome.sweep], store.folder / REPORT)
        return Finished(outcome, report, stop.reason, stop.exit_code or code, failed)

    @property
    def _in_order(self) -> bool:
        """Whether the search came to an end, its own or that of a limit, and its front is what it is."""
        return self._store.info.status == "finished" or self._stop.in_good_order

    def _write_models(self, report: TrackingReport) -> tuple[int, dict[str, str]]:
        """Write the networks on the front, for MLflow too if it got everything else.

        Everything else is in its place by now, so nothing here may raise.

        Returns:
            The exit code of whatever broke it off, or 0; and which networks are not there -> why.
        """
        name, broken = self._store.info.name, StopRequest()
        where = place(self._results)
        failed: dict[str, str] = {}
        try:
            with breaking_off(broken):
                rebuilder = Rebuilder(self._results, read_sweep(self._results, name, whole=True), self._reporter)
                failed = make_models(rebuilder, self._reporter, self._store.append)
                rebuilder.sweep = read_sweep(self._results, name, whole=True)  # with the latencies just measured
                why = report.problem or log_models(self._uri, rebuilder, self._reporter)
                if why:
                    failed |= {"in MLflow": f"{why}; 'sweep sync {name}{where}' tries again"}
        except Exception as error:  # a bug must not cost the sweep
            failed = {"of the front": first_line(error)}
        if broken.reason:
            remedy = f"'sweep resume {name}{where}' makes those that are missing"
            failed = {"of the front": f"broken off ({broken.reason}); {remedy}"}
        return broken.exit_code, failed


def left_out(sweep: StoredSweep) -> list[str]:
    """What of ``trials.jsonl`` is not used, in sentences."""
    return [f"{line}; their trials run again" if "damaged" in line else line for line in unread(sweep)]


def versions() -> dict[str, str]:
    """Versions of what decides the results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
