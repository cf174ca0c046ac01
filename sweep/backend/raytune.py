"""The glue to Ray Tune: its searcher asks our work queue, its callback says why a batch failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from core.records import parse_record
from sweep.backend.stopping import FAILED, StopRequest
from sweep.backend.worker import RECORDS_KEY, TASKS_KEY, pack
from sweep.backend.workqueue import WorkQueue
from sweep.errors import first_line

TAKEN_AWAY = ("the actor's node was preempted", "the actor's node was terminated expectedly")
"""Ray's words for nodes that ended because somebody wanted them to."""


class QueueSearcher(Searcher):
    """Tune's view of a `WorkQueue`: one suggestion is one batch of configurations."""

    def __init__(self, queue: WorkQueue) -> None:
        super().__init__()
        self._queue = queue

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """The next batch, None for nothing now, or `FINISHED`."""
        tasks = self._queue.next_batch(trial_id)
        if tasks is not None:
            return {TASKS_KEY: pack(tasks)}
        return Searcher.FINISHED if self._queue.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A batch is over. A failed one is ended by `QueueCallback`, which knows the reason."""
        if not error:
            self._queue.ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the results store is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a sweep is resumed from the results store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class QueueCallback(tune.Callback):
    """Hands the records that come back to the queue, tells it which batch failed and why, and leaves when asked to."""

    def __init__(self, queue: WorkQueue, stop: StopRequest, live: Callable[[int], None]) -> None:
        self._queue, self._stop, self._live = queue, stop, live

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Between two events, at least ten times a second: the place to leave."""
        self._live(self._queue.running)
        self._stop.check(self._queue.wind_up)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Take the records out of the result: Tune would keep every trial's last result in memory."""
        self._queue.returned(trial.trial_id, [parse_record(text) for text in result.pop(RECORDS_KEY)])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A batch's worker died or raised; when no worker ever lives, the sweep is hopeless."""
        error = error_of(trial)
        reason = reason_of(error)
        self._queue.ended(trial.trial_id, reason, excused=was_taken_away(error))
        if self._queue.hopeless:
            self._stop.ask(f"the workers fail again and again: {reason}", FAILED)


class PatientScheduler(FIFOScheduler):
    """First come, first served, without taking a starting worker's batch away.

    # NOTE: with reused actors, Tune's FIFO gives a waiting trial to the first idle actor and kills the one that was
    # starting up for it; with trials shorter than a start-up, workers would never come up.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the choice to the controller, which starts pending trials in order."""


def error_of(trial: Trial) -> Exception | None:
    """The exception that ended ``trial``; Tune has just written it to its own scratch folder.

    # NOTE: `Trial.get_pickled_error` looks in the storage folder, where the file only arrives at the end.
    """
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    error: Exception = cloudpickle.loads(Path(path).read_bytes())
    return error


def was_taken_away(error: Exception | None) -> bool:
    """Whether a worker ended with its node because that was preempted or shut down on purpose, e.g. drained."""
    return isinstance(error, RayActorError) and (error.preempted or any(words in str(error) for words in TAKEN_AWAY))


def reason_of(error: Exception | None) -> str:
    """Why a worker did not return its records, in a few words."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in text:
        return "the worker was killed because its machine ran out of memory"
    if isinstance(error, RayTaskError) or "creation task" in text:
        return f"the worker raised {text.strip().splitlines()[-1]}"
    if isinstance(error, RayActorError):
        return "the worker process died (killed, crashed, or its machine was lost)"
    return f"the worker failed: {first_line(error)}" if error else "the worker failed without saying why"
