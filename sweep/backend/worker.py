"""What runs on a Ray worker: a Tune trainable that keeps its workbench and takes batch after batch."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter
from ray import tune

from core.config import TrialConfig
from core.race import Race, Rival, add, merge
from core.records import Record, SplitRecord, TrialRecord
from core.trial import run_test, run_trial
from sweep.backend.deadline import TrialTimeoutError, deadline
from sweep.backend.triallog import captured

TASKS_KEY, RECORDS_KEY = "batch", "records"
"""Under these names a batch goes to Tune and its records come back."""
SLICE_SECONDS = 4.0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h


class Buildable(Protocol):
    """What is shared with every worker, e.g. a `SharedBench`."""

    def build(self, device: str) -> Any:
        """Make the worker's own workbench."""


@dataclass(frozen=True)
class Task:
    """One thing to do.

    Attributes:
        config: of the trial.
        race: what it is raced against, if it is.
        test: the trial is over; evaluate it on the test split.
    """

    config: TrialConfig
    race: Race | None = None
    test: bool = False

    @property
    def id(self) -> str:
        """Identity of what comes of it (see `id_of`)."""
        return f"{self.config.key}/test" if self.test else self.config.key


def id_of(record: Record) -> str:
    """Identity of what a task gave."""
    return f"{record.key}/test" if isinstance(record, SplitRecord) else record.key


@dataclass(frozen=True)
class Work:
    """What workers do with a task, given their workbench.

    Attributes:
        trial: makes a record of a configuration, the workbench and, if there is one, the race.
        test: evaluates a configuration on the test split.
    """

    trial: Callable[..., TrialRecord] = run_trial
    test: Callable[..., SplitRecord] = run_test


TASKS: TypeAdapter[list[Task]] = TypeAdapter(list[Task])


class TrialWorker(tune.Trainable):
    """Runs batches of configurations one after another; reused from batch to batch.

    A step ends after `SLICE_SECONDS` or with the batch, so that finished records reach the results store soon and a
    worker that dies loses little.
    """

    def setup(  # type: ignore[override]  # Tune passes what `tune.with_parameters` was given by name
        self,
        config: dict[str, Any],
        shared: Buildable,
        work: Work,
        gpu: bool,
        trial_seconds: float | None,
        own_rivals: bool,
    ) -> None:
        """Build the workbench, once in the actor's life; on the CPU where Ray's GPUs are only logical ones.

        Args:
            config: the first batch.
            shared: makes the workbench.
            work: what is done with a task.
            gpu: whether each worker has a share of a GPU.
            trial_seconds: how long a trial may take; None: any time.
            own_rivals: what this worker has finished joins the rivals that come with a batch, which are a little older.
        """
        import torch

        torch.set_num_threads(1)
        keep_freed_memory()
        self._bench = shared.build("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self._work, self._trial_seconds = work, trial_seconds
        self._own_rivals, self._rivals = own_rivals, tuple[Rival, ...]()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next batch."""
        self._waiting = deque(unpack(new_config[TASKS_KEY]))
        return True

    def step(self) -> dict[str, Any]:
        """Run configurations until the time slice or the batch is over, and return their records."""
        until = time.perf_counter() + SLICE_SECONDS
        records: list[Record] = []
        while self._waiting and (not records or time.perf_counter() < until):
            records.append(self._do(self._waiting.popleft()))
        return {RECORDS_KEY: [record.model_dump_json() for record in records], "done": not self._waiting}

    def _do(self, task: Task) -> Record:
        return self._test(task) if task.test else self._trial(task)

    def _test(self, task: Task) -> SplitRecord:
        started = time.time()
        try:
            with captured(), deadline(self._trial_seconds):
                return self._work.test(task.config, self._bench)
        except TrialTimeoutError as error:
            return failed_test(task.config, str(error), started_at=started)

    def _trial(self, task: Task) -> TrialRecord:
        started, clock = time.time(), time.perf_counter()
        race = [Race(rivals=merge(task.race.rivals, self._rivals))] if task.race else []
        with captured() as log:
            try:
                with deadline(self._trial_seconds):
                    record = self._work.trial(task.config, self._bench, *race)
            except TrialTimeoutError as error:  # the alarm rang where the trial itself could not hear it
                seconds = time.perf_counter() - clock
                record = failed_record(task.config, str(error), started_at=started, seconds=seconds)
        if self._own_rivals:
            self._rivals = add(self._rivals, record)
        text = log()
        return record.model_copy(update={"log": record.log + text}) if text else record


def keep_freed_memory() -> None:
    """Let the C library keep what tensors leave free for the next ones, instead of giving it back to the system.

    Freed and fetched again for every batch of images, activations of some MB cost up to a tenth of a trial in page
    faults. Blocks of 32 MB, the largest threshold that glibc takes, still go back. Without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def failed_record(config: TrialConfig, reason: str, started_at: float, seconds: float = 0.0) -> TrialRecord:
    """The record of a trial that could not make its own."""
    return TrialRecord(
        key=config.key, config=config.as_json(), status="failed", reason=reason, started_at=started_at, seconds=seconds
    )


def failed_test(config: TrialConfig, reason: str, started_at: float) -> SplitRecord:
    """What an evaluation on the test split gives that could not be made."""
    return SplitRecord(key=config.key, split="test", status="failed", reason=reason, started_at=started_at)


def failed(task: Task, reason: str, started_at: float) -> Record:
    """The record of a task that was given up."""
    return (failed_test if task.test else failed_record)(task.config, reason, started_at)


def pack(tasks: Sequence[Task]) -> str:
    """A batch as one JSON string: Tune copies, flattens and prints whatever is not a leaf."""
    return TASKS.dump_json(list(tasks)).decode()


def unpack(text: str) -> list[Task]:
    """Undo `pack`."""
    return TASKS.validate_json(text)
