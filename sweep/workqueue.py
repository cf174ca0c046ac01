"""Which configurations go to which worker together, and what happens to them when the worker dies.

One Tune trial runs a batch: starting one costs Tune about 15 ms on the driver whatever it does, so short trials
share that cost. Nothing else sees the batches: one configuration is one record.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.config import TrialConfig, TrialRecord
from sweep.planner import LAG, Planner

BATCH_SECONDS = 1.5
BATCH_LIMIT = 32
ATTEMPTS = 3
DEATHS_IN_A_ROW = 8


@dataclass
class _Batch:
    waiting: dict[str, TrialConfig]
    alone: bool = field(default=False)


class WorkQueue:
    """Batches of configurations for ``workers`` workers, with retries.

    Args:
        planner: where configurations come from.
        workers: how many batches run at once.
        on_record: called once for every configuration, in the order of their ends.
        trial_seconds: first guess at a trial's duration; later the running mean is used.

    A worker that dies takes down what it had not returned; these configurations run again, each alone, so that one
    that kills its worker harms no other. After `ATTEMPTS` attempts it is recorded as failed with the reason.
    """

    def __init__(
        self, planner: Planner, workers: int, on_record: Callable[[TrialRecord], None], trial_seconds: float
    ) -> None:
        self._planner, self._workers, self._on_record = planner, workers, on_record
        self._seconds = max(trial_seconds, 1e-4)
        self._running: dict[str, _Batch] = {}
        self._again: deque[TrialConfig] = deque()
        self._attempts: dict[str, int] = {}
        self._seen: set[str] = set()
        self._deaths_in_a_row = 0

    @property
    def finished(self) -> bool:
        """True when nothing waits, nothing runs, and the planner has no more."""
        return not self._running and not self._again and self._planner.exhausted

    @property
    def hopeless(self) -> bool:
        """True when workers only die: many deaths in a row, and no record between them."""
        return self._deaths_in_a_row >= DEATHS_IN_A_ROW + self._workers

    def next_batch(self, name: str) -> Sequence[TrialConfig] | None:
        """Configurations to run next under the batch name ``name``; None: nothing now."""
        if len(self._running) >= self._workers:
            return None
        if self._again:
            configs, alone = [self._again.popleft()], True
        else:
            configs, alone = self._draw(self._batch_size()), False
        if not configs:
            return None
        self._running[name] = _Batch({config.key: config for config in configs}, alone)
        return configs

    def returned(self, name: str, records: Sequence[TrialRecord]) -> None:
        """Records of batch ``name`` came back."""
        batch = self._running.get(name)
        for record in records:
            if batch is not None:
                batch.waiting.pop(record.key, None)
            self._seconds += 0.2 * (max(record.seconds, 1e-4) - self._seconds)
            self._deaths_in_a_row = 0
            self._file(record)

    def ended(self, name: str, error: str = "") -> None:
        """Batch ``name`` is over; what it did not return is run again or recorded as failed."""
        batch = self._running.pop(name, None)
        if batch is None:
            return
        if error:
            self._deaths_in_a_row += 1
        for config in batch.waiting.values():
            self._retry(config, error or "the worker returned no record", guilty=batch.alone or len(batch.waiting) == 1)

    def _retry(self, config: TrialConfig, reason: str, guilty: bool) -> None:
        attempts = self._attempts[config.key] = self._attempts.get(config.key, 0) + guilty
        if attempts < ATTEMPTS:
            self._again.append(config)
            return
        text = f"{reason} ({attempts} attempts)"
        self._file(TrialRecord(key=config.key, config=config, status="failed", reason=text, started_at=time.time()))

    def _file(self, record: TrialRecord) -> None:
        if record.key in self._seen:
            return
        self._seen.add(record.key)
        self._planner.tell(record)
        self._on_record(record)

    def _draw(self, count: int) -> list[TrialConfig]:
        drawn: list[TrialConfig] = []
        while len(drawn) < count and (config := self._planner.ask()) is not None:
            drawn.append(config)
        return drawn

    def _batch_size(self) -> int:
        """About `BATCH_SECONDS` of work, smaller towards the end so that all workers finish together."""
        left = self._planner.total - len(self._seen) - sum(len(b.waiting) for b in self._running.values())
        fair = left // (2 * self._workers)
        return max(1, min(int(BATCH_SECONDS / self._seconds), fair, BATCH_LIMIT, LAG // (self._workers + 1)))
