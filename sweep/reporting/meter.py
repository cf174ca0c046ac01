"""How far a sweep is (`Progress`), counted record by record."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from core.evaluators import USUAL, Evaluator
from core.metrics import Metric
from core.records import TrialRecord

RATE_WINDOW_SECONDS = 30.0
FEW = 5
"""So many of the last trials tell the rate at least, however long they take. The first few have to find out what
others share, and of fewer in `RATE_WINDOW_SECONDS` nothing is concluded of the time to the end."""


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        finished: trials with a result.
        failed: trials without.
        stopped: trials that racing gave up early.
        total: all of them, when the sweep is done.
        rate: trials per second lately; 0 when unknown.
        eta_seconds: expected time to the end; NaN when unknown.
        best: the most accurate record so far, of equally accurate ones the smallest.
        scored: what records are scored by.
    """

    finished: int
    failed: int
    stopped: int
    total: int
    rate: float
    eta_seconds: float
    best: TrialRecord | None
    scored: Evaluator = USUAL

    @property
    def done(self) -> int:
        """Trials that are over, well or not."""
        return self.finished + self.failed + self.stopped


class Meter:
    """Counts records as they end; the rate is that of the last `RATE_WINDOW_SECONDS`, or of the last `FEW` trials.

    Args:
        total: how many there will be.
        since: trials that began before (seconds since the epoch) tell nothing of the rate: they are of an earlier
            session or of another sweep.
        scored: what records are scored by.
    """

    def __init__(self, total: int, since: float = 0.0, scored: Evaluator = USUAL) -> None:
        self.total, self._since = total, since
        self._scored = scored
        self._counts = {"finished": 0, "failed": 0, "stopped": 0}
        self._ends: deque[float] = deque()
        self._started_at = math.inf
        self._forgotten = -math.inf
        self._best: TrialRecord | None = None

    def add(self, record: TrialRecord) -> None:
        """Count one record."""
        self._counts[record.status] += 1
        if record.started_at >= self._since:
            self._started_at = min(self._started_at, record.started_at)
            bisect.insort(self._ends, record.started_at + record.seconds)
        score = self._scored.score
        if record.status == "finished" and (
            self._best is None or goodness(record, score) > goodness(self._best, score)
        ):
            self._best = record

    def progress(self, now: float) -> Progress:
        """How far it is at the time ``now`` (seconds since the epoch)."""
        since = now - RATE_WINDOW_SECONDS
        while len(self._ends) > FEW and self._ends[0] < since:
            self._forgotten = self._ends.popleft()
        began = max(self._started_at, self._forgotten)
        long_ago = bool(self._ends) and self._ends[0] < since
        rate = len(self._ends) / max(now - (began if long_ago else max(since, began)), 1.0)
        left = self.total - sum(self._counts.values())
        early = len(self._ends) < FEW and now - self._started_at < RATE_WINDOW_SECONDS
        eta = left / rate if rate > 0 and not early else math.nan
        return Progress(
            **self._counts, total=self.total, rate=rate, eta_seconds=eta, best=self._best, scored=self._scored
        )


def progress_of(
    records: Iterable[TrialRecord], total: int, now: float, since: float = 0.0, scored: Evaluator = USUAL
) -> Progress:
    """How far a sweep with these ``records`` is at the time ``now``; see `Meter`."""
    meter = Meter(total, since, scored)
    for record in records:
        meter.add(record)
    return meter.progress(now)


def goodness(record: TrialRecord, score: Metric) -> tuple[float, float]:
    """By what trials are ranked: the better first, of equally good ones the smaller."""
    value = record.metrics.get(score.name)
    reached = -math.inf if value is None else -score.loss(value)
    return reached, -record.metrics.get("params_fraction", math.inf)
