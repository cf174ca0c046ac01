"""What happens to a record as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from core.config import TrialConfig
from core.errors import UsageError
from core.metrics import KNOWN_FRACTIONS, METRICS, TEST, Metric
from core.records import Record, TrialRecord
from sweep.backend.stopping import FAILED, StopRequest
from sweep.limits import Front, Plateau
from sweep.reporting.meter import Meter
from sweep.reporting.progress import Reporter
from sweep.reporting.telemetry import Telemetry
from sweep.storage.reader import slim
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
        tested: keys of those that have been evaluated on the test split, well or not.
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
        tested: Iterable[str] = (),
    ) -> None:
        self._store, self._tracker, self._stop = store, tracker, stop
        self._reporter, self._telemetry = reporter, telemetry
        scored = store.info.request.scored
        self._meter = Meter(total, since=time.time(), scored=scored)
        self._score = scored.score
        least = self._score.corner(store.state.original.get(self._score.name))
        self._fronts, self._tested = fronts_of(known, self._score, least), set(tested)
        for record in known:
            self._meter.add(record)
        patience = store.info.request.limits.plateau
        self._plateau = Plateau(patience, self._volume) if patience else None

    @property
    def _volume(self) -> float:
        return self._fronts["params_fraction"].volume

    def __call__(self, record: Record) -> None:
        """File a new record."""
        self._store.append(record)
        self._tracker.put(record)
        if isinstance(record, TrialRecord):
            self._count(slim(record))
        else:
            self._tested.add(record.key)
        if self._store.trouble:
            self._stop.ask(self._store.trouble, FAILED)

    def _count(self, record: TrialRecord) -> None:
        self._meter.add(record)
        for front in self._fronts.values():
            front.add(record)
        self._show()
        if self._plateau and self._plateau.reached(self._volume):
            self._stop.ask(f"the front has not grown for {self._plateau.patience} trials")

    def untested(self) -> list[TrialConfig]:
        """The trials on the front (over any size that is known beforehand) that lack figures of the test split."""
        return lacking_test(self._fronts, self._tested, self._score.name)

    def _show(self) -> None:
        progress = self._meter.progress(time.time())
        self._reporter.trials(progress)
        self._telemetry.update(progress, lambda: self._volume, last=progress.done >= progress.total)


def fronts_of(
    records: Sequence[TrialRecord], score: Metric = METRICS["accuracy"], least: float = 0.0
) -> dict[str, Front]:
    """The front over each size that is known beforehand; hypervolumes begin at the ``least`` of the score."""
    return {size: Front(records, size, score.name, (1.0, least)) for size in KNOWN_FRACTIONS}


def lacking_test(fronts: Mapping[str, Front], tested: Collection[str], score: str = "accuracy") -> list[TrialConfig]:
    """The members of ``fronts`` without figures of the test split; ``tested`` are keys that have been there."""
    members = {record.key: record for front in fronts.values() for record in front.members}
    lacking = [r for key, r in members.items() if key not in tested and f"{TEST}{score}" not in r.metrics]
    return [config for record in lacking if (config := _parsed(record)) is not None]


def _parsed(record: TrialRecord) -> TrialConfig | None:
    """The configuration of a record; None where it names something that is not known any more, or has another key."""
    try:
        config = TrialConfig.parse(record.config)
    except UsageError:
        return None
    return config if config.key == record.key else None
