"""What a sweep is (`SweepInfo`, kept as ``sweep.json``) and how far it is (`Progress`); frozen data, nothing else."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.config import TrialRecord
from sweep.backend.cluster import ClusterRequest

Status = Literal["running", "finished", "stopped", "interrupted", "failed"]
"""``stopped``: ended early by a limit or by ``sweep stop``; ``interrupted``: by a signal or a crash."""

RATE_WINDOW_SECONDS = 30.0
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a sweep and its space may be called: both become names of files."""
Seconds = Annotated[float, Field(ge=0, lt=1e11)]
"""A time span, or a time since the epoch."""
Count = Annotated[int, Field(ge=0, le=10**9)]


class Limits(BaseModel):
    """What ends a sweep, or one of its trials, early; None: nothing does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float | None = Field(None, gt=0, description="end the sweep after this long; a resumed one counts anew")
    plateau: int | None = Field(None, ge=1, description="end it after so many trials without a better front")
    trial_seconds: float | None = Field(None, gt=0, description="a trial that takes longer has failed")


class SweepInfo(BaseModel):
    """Everything about a sweep but its records: enough to say what was done and to do it again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=NAME)
    space: str = Field(pattern=NAME, description="name of the search space")
    resolved: dict[str, Any] = Field(description="the space after every default and --set")
    search: str
    samples: int | None = None
    seed: int = 0
    total: Count = Field(description="number of configurations to try")
    status: Status = "running"
    message: str = Field("", description="why it ended early")
    race: bool = Field(False, description="evaluate in slices and stop trials that are beaten")
    limits: Limits = Limits()
    cluster: ClusterRequest = ClusterRequest()
    lag: Count = Field(0, description="how many configurations an optimiser draws ahead of the results it knows")
    hints: list[dict[str, Any]] = Field(default_factory=list, description="configurations to try first")
    pid: int = 0
    host: str = ""
    workers: Count = 0
    started_at: Seconds = Field(0.0, description="seconds since the epoch")
    resumed_at: Seconds = Field(0.0, description="when it was last resumed")
    ended_at: Seconds = 0.0
    earlier_seconds: Seconds = Field(0.0, description="how long it ran before it was last resumed")
    baseline_key: str = ""
    original: dict[str, float] = Field(default_factory=dict, description="metrics of the original network")
    dataset: dict[str, Any] = Field(default_factory=dict, description="what trials are evaluated on")
    versions: dict[str, str] = Field(default_factory=dict)
    tracking_uri: str = ""
    run_id: str = Field("", description="the MLflow parent run")

    @property
    def seconds(self) -> float:
        """How long it has run, all its parts together."""
        return self.earlier_seconds + max(0.0, self.ended_at - max(self.started_at, self.resumed_at))


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Args:
        finished: trials with a result; failed: trials without; stopped: trials that racing gave up early.
        total: all of them, when the sweep is done.
        rate: trials per second lately; 0 when unknown.
        eta_seconds: expected time to the end; NaN when unknown.
        best: the most accurate record so far.
    """

    finished: int
    failed: int
    stopped: int
    total: int
    rate: float
    eta_seconds: float
    best: TrialRecord | None

    @property
    def done(self) -> int:
        """Trials that are over, well or not."""
        return self.finished + self.failed + self.stopped


class Meter:
    """Counts records as they end; the rate is that of the last `RATE_WINDOW_SECONDS`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._counts = {"finished": 0, "failed": 0, "stopped": 0}
        self._ends: deque[float] = deque()
        self._started_at = math.inf
        self._best: TrialRecord | None = None

    def add(self, record: TrialRecord) -> None:
        """Count one record."""
        self._counts[record.status] += 1
        self._started_at = min(self._started_at, record.started_at)
        bisect.insort(self._ends, record.started_at + record.seconds)
        if record.status == "finished" and (self._best is None or _accuracy(record) > _accuracy(self._best)):
            self._best = record

    def progress(self, now: float) -> Progress:
        """How far it is at the time ``now`` (seconds since the epoch)."""
        while self._ends and self._ends[0] < now - RATE_WINDOW_SECONDS:
            self._ends.popleft()
        window = max(min(RATE_WINDOW_SECONDS, now - self._started_at), 1.0)
        rate = len(self._ends) / window
        left = self.total - sum(self._counts.values())
        eta = left / rate if rate > 0 else math.nan
        return Progress(**self._counts, total=self.total, rate=rate, eta_seconds=eta, best=self._best)


def progress_of(records: Iterable[TrialRecord], total: int, now: float) -> Progress:
    """How far a sweep with these ``records`` is at the time ``now``."""
    meter = Meter(total)
    for record in records:
        meter.add(record)
    return meter.progress(now)


def _accuracy(record: TrialRecord) -> float:
    return record.metrics.get("accuracy", -math.inf)
