"""What happens to a record as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from core.config import TrialRecord
from sweep.backend.stopping import FAILED, StopRequest
from sweep.limits import Front, Plateau
from sweep.reporting.progress import Reporter
from sweep.reporting.telemetry import Telemetry
from sweep.storage.info import Meter
from sweep.storage.writer import Store
from sweep.tracking import Tracker


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
