"""The one writer of MLflow: a thread that records are handed to and that never holds up a trial."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from core.records import Record, TrialRecord
from sweep.errors import first_line
from sweep.storage.info import SweepInfo
from sweep.tracking.summary import Ending, varying
from sweep.tracking.view import DatasetCard, Names, amendment, child_run

if TYPE_CHECKING:
    from sweep.tracking.runs import SweepRuns

T = TypeVar("T")

RUNS_AT_ONCE = 100
GATHER_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
PATIENCE_SECONDS = 45.0  # at the end: several of the longest pauses, so that a server that is back is noticed


@dataclass(frozen=True)
class TrackingReport:
    """What came of logging.

    Attributes:
        run_id: the parent run, empty when not even that could be made.
        logged: child runs written.
        missing: child runs that are not.
        problem: the last error in a few words, empty when all went well.
        experiment_id: where the run is.
    """

    run_id: str
    logged: int
    missing: int
    problem: str
    experiment_id: str = ""


class Tracker:
    """Writes a sweep's parent run and a child run for every record that is `put`, from its own thread.

    MLflow never decides a sweep's success: an error is retried with growing pauses, and `finish` tells what could
    not be written. Everything is in the results store in any case.

    Args:
        uri: of the store or server.
        artifacts: root of the artifacts for a store without a server, None where a server decides.
        info: of the sweep, for the parent run.
        card: what trials are evaluated on.
    """

    def __init__(self, uri: str, artifacts: str | None, info: SweepInfo, card: DatasetCard) -> None:
        self._uri, self._artifacts, self._info, self._card = uri, artifacts, info, card
        self._inbox: queue.SimpleQueue[Record | Ending] = queue.SimpleQueue()
        self._keys: set[str] = set()
        self._names = Names(varying(info))
        self._runs: SweepRuns | None = None
        self._give_up = threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """The parent run; empty until it is there."""
        return self._runs.run_id if self._runs else ""

    @property
    def logged(self) -> int:
        """Child runs written so far."""
        return len(self._keys & self._runs.sink.written) if self._runs else 0

    def put(self, record: Record) -> None:
        """Hand over a record; returns at once."""
        self._keys.add(record.key)
        self._inbox.put(record)

    def finish(self, ending: Ending, patience: float = PATIENCE_SECONDS) -> TrackingReport:
        """Write what is left and end the parent run; gives up after ``patience`` seconds without progress."""
        self._inbox.put(ending)
        before, deadline = self.logged, time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.1)
            if self.logged != before:
                before, deadline = self.logged, time.monotonic() + patience
        self._give_up.set()
        self._thread.join(1.0)
        missing = len(self._keys) - self.logged
        waited = f"no answer for {patience:g} s" if missing or self._thread.is_alive() else ""
        experiment = self._runs.experiment_id if self._runs else ""
        return TrackingReport(self.run_id, self.logged, missing, self.problem or waited, experiment)

    def _work(self) -> None:
        from sweep.tracking.runs import SweepRuns

        self._runs = runs = self._insist(partial(SweepRuns, self._uri, self._artifacts, self._info, self._card))
        ending: Ending | None = None
        while runs is not None and ending is None and not self._give_up.is_set():
            records, ending = self._gather()
            trials = [record for record in records if isinstance(record, TrialRecord)]
            children = [child_run(record, self.run_id, self._names.of(record)) for record in trials]
            if children:
                self._insist(partial(runs.sink.write, children))
            later = [found for record in records if (found := amendment(record)) is not None]
            if later:
                self._insist(partial(runs.amend, later))
        if runs is not None and ending is not None:
            self._insist(partial(runs.close, ending, self._names))

    def _insist(self, action: Callable[[], T]) -> T | None:
        """Do it until it works; None when told to give up."""
        pause = FIRST_PAUSE
        while not self._give_up.is_set():
            try:
                result = action()
            except Exception as error:
                self.problem = first_line(error)
                self._give_up.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.problem = ""
                return result
        return None

    def _gather(self) -> tuple[list[Record], Ending | None]:
        """Wait for records; what comes within `GATHER_SECONDS` is written together."""
        records: list[Record] = []
        deadline = time.monotonic() + GATHER_SECONDS
        while len(records) < RUNS_AT_ONCE:
            try:
                item = self._inbox.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if isinstance(item, Ending):
                return records, item
            records.append(item)
        return records, None
