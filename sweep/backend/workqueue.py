"""Which configurations go to which worker together, and what happens to them when the worker dies.

One Tune trial runs a batch: starting one costs Tune about 15 ms on the driver whatever it does, so short trials
share that cost. Nothing else sees the batches: one configuration is one record.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.config import TrialConfig
from core.race import Race
from core.records import Record, TrialRecord
from sweep.backend.deadline import hard_limit
from sweep.backend.worker import Task, failed, id_of
from sweep.search.base import Planner

BATCH_SECONDS = 8.0
BATCH_LIMIT = 32
RACE_BATCH = 8  # what a batch is raced against is as old as the batch
ATTEMPTS = 3
DEATHS_IN_A_ROW = 8


@dataclass
class _Batch:
    """What one run of a worker has to do.

    Attributes:
        waiting: id -> a task that has no outcome yet.
        alone: it is one task of a batch that ended before; if it ends this one too, the task is to blame.
        heard_at: when an outcome last came, by the monotonic clock; at first, when the batch was handed out.
    """

    waiting: dict[str, Task]
    alone: bool
    heard_at: float = field(default_factory=lambda: time.monotonic())


class WorkQueue:
    """Batches of configurations for ``workers`` workers, with retries.

    Args:
        planner: where configurations come from.
        workers: how many batches run at once.
        on_record: called once for every task, in the order of their ends.
        trial_seconds: first guess at a trial's duration; later the running mean is used.
        race: trials race against the front that the planner knows; otherwise all are evaluated in full.
        limit: how many seconds a trial may take (see `sweep.backend.deadline`); None: any.
        known: how many of the planner's configurations have a record already.
        last: called when the planner is exhausted and nothing runs: which configurations are evaluated on the test
            split at the end; None: there is no test split.

    A worker that dies takes down what it had not returned; these configurations run again, each alone, so that one
    that kills its worker harms no other. After `ATTEMPTS` attempts it is recorded as failed with the reason; after one,
    if its worker died at the end of the time it may take. A machine that was taken away is no attempt.
    """

    def __init__(
        self,
        planner: Planner,
        workers: int,
        on_record: Callable[[Record], None],
        trial_seconds: float,
        race: bool = False,
        limit: float | None = None,
        known: int = 0,
        last: Callable[[], Sequence[TrialConfig]] | None = None,
    ) -> None:
        self._planner, self._workers, self._on_record = planner, workers, on_record
        self._seconds = max(trial_seconds, 1e-4)
        self._race, self.limit = race, limit
        self._running: dict[str, _Batch] = {}
        self._again: deque[Task] = deque()
        self._attempts: dict[str, int] = {}
        self._filed: set[str] = set()
        self._deaths_in_a_row = 0
        self._left = planner.total - known
        self._last, self._winding_up = last, False
        self._tests: deque[Task] | None = None
        """What is left to do at the end; None: that is not known yet."""

    @property
    def own_rivals(self) -> bool:
        """Whether a worker's own results join its rivals at once; an optimiser's search must not depend on them."""
        return self._race and self._planner.window is None

    @property
    def running(self) -> int:
        """How many trials are under way: one for each busy worker."""
        return len(self._running)

    @property
    def finished(self) -> bool:
        """True when nothing waits, nothing runs, the planner has no more, and nothing is left to test."""
        return self._searched and not self._to_test()

    def wind_up(self) -> bool:
        """Draw no more: what runs is waited for, and the front so far is tested.

        Returns:
            False where there is nothing to test, so that there is nothing to wait for either.
        """
        if self._last is None:
            return False
        self._winding_up = True
        self._again = deque(task for task in self._again if task.test)
        return True

    @property
    def _searched(self) -> bool:
        return not self._running and not self._again and (self._winding_up or self._planner.exhausted)

    def _to_test(self) -> deque[Task]:
        """What is left to evaluate on the test split, once the search is over."""
        if self._tests is None and self._searched:
            self._tests = deque(Task(config, test=True) for config in (self._last() if self._last else ()))
            self._left += len(self._tests)
        return deque() if self._tests is None else self._tests

    @property
    def hopeless(self) -> bool:
        """True when workers only die: many deaths in a row, and no record between them."""
        return self._deaths_in_a_row >= DEATHS_IN_A_ROW + self._workers

    def next_batch(self, name: str) -> Sequence[Task] | None:
        """Trials to run next under the batch name ``name``; None: nothing now."""
        if len(self._running) >= self._workers:
            return None
        if self._again:
            tasks, alone = [self._again.popleft()], True
        else:
            tasks, alone = self._draw(self._batch_size()), False
        if not tasks:
            return None
        self._running[name] = _Batch({task.id: task for task in tasks}, alone)
        return tasks

    def returned(self, name: str, records: Sequence[Record]) -> None:
        """Records of batch ``name`` came back."""
        batch = self._running.get(name)
        if batch is not None:
            batch.heard_at = time.monotonic()
        for record in records:
            if batch is not None:
                batch.waiting.pop(id_of(record), None)
            self._seconds += 0.2 * (max(record.seconds, 1e-4) - self._seconds)
            self._deaths_in_a_row = 0
            self._file(record)

    def ended(self, name: str, error: str = "", *, excused: bool = False) -> None:
        """Batch ``name`` is over; what it did not return is run again or recorded as failed.

        Args:
            name: of the batch.
            error: why it ended early; empty where it did not.
            excused: it ended because its machine was taken away, which says nothing about any trial.
        """
        batch = self._running.pop(name, None)
        if batch is None:
            return
        if error and not excused:
            self._deaths_in_a_row += 1
        guilty = not excused and (batch.alone or len(batch.waiting) == 1)
        if guilty and self.limit is not None and time.monotonic() - batch.heard_at > hard_limit(self.limit):
            for task in batch.waiting.values():
                reason = f"it took longer than {self.limit:g} s (--trial-timeout) and its worker had to be killed"
                self._file(failed(task, reason, time.time()))
            return
        for task in batch.waiting.values():
            self._retry(task, error or "the worker returned no record", guilty)

    def _retry(self, task: Task, reason: str, guilty: bool) -> None:
        attempts = self._attempts[task.id] = self._attempts.get(task.id, 0) + guilty
        if attempts < ATTEMPTS:
            self._again.append(task)
            return
        self._file(failed(task, f"{reason} ({attempts} attempts)", time.time()))

    def _file(self, record: Record) -> None:
        if id_of(record) in self._filed:
            return
        self._filed.add(id_of(record))
        if isinstance(record, TrialRecord):
            self._planner.tell(record)
        self._on_record(record)

    def _draw(self, count: int) -> list[Task]:
        drawn: list[Task] = []
        while len(drawn) < count and not self._winding_up and (config := self._planner.ask()) is not None:
            drawn.append(Task(config, Race(rivals=self._planner.rivals) if self._race else None))
        while len(drawn) < count and (tests := self._to_test()):
            drawn.append(tests.popleft())
        return drawn

    def _batch_size(self) -> int:
        """About `BATCH_SECONDS` of work, smaller towards the end so that all workers finish together."""
        left = self._left - len(self._filed) - sum(len(batch.waiting) for batch in self._running.values())
        fair = left // (2 * self._workers)
        limit = RACE_BATCH if self._race else BATCH_LIMIT
        window = self._planner.window // (self._workers + 1) if self._planner.window else limit
        return max(1, min(int(BATCH_SECONDS / self._seconds), fair, window, limit))
