"""Run a work queue on a connected Ray through Tune."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.train.constants import RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE

from sweep.backend.raytune import PatientScheduler, QueueCallback, QueueSearcher
from sweep.backend.stopping import Stopped, StopRequest
from sweep.backend.worker import Buildable, TrialWorker, Work
from sweep.backend.workqueue import WorkQueue


def execute(
    queue: WorkQueue,
    shared: Buildable,
    work: Work,
    workers: int,
    stop: StopRequest,
    gpus_per_trial: float = 0.0,
    live: Callable[[int], None] = lambda running: None,
) -> None:
    """Run the queue until it is finished or ``stop`` has a reason.

    Args:
        queue: hands out configurations and takes records.
        shared: what every worker builds its workbench from; put into the object store once.
        work: what workers do with a task.
        workers: how many run at once.
        stop: its reason ends the sweep early; what runs at that moment is given up, unless there is time to end in
            good order and something to be done then (see `WorkQueue.wind_up`).
        gpus_per_trial: GPUs reserved for each worker.
        live: hears, about ten times a second, how many trials are under way.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    os.environ[RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE] = "1"  # else Tune runs the batch again, what it returned too
    trainable = make_trainable(queue, shared, work, gpus_per_trial)
    del shared
    with tempfile.TemporaryDirectory(prefix="sweep-tune-") as folder, contextlib.suppress(Stopped):
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=QueueSearcher(queue),
                scheduler=PatientScheduler(),  # type: ignore[no-untyped-call]
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="sweep",
                verbose=0,
                callbacks=[QueueCallback(queue, stop, live)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()


def make_trainable(queue: WorkQueue, shared: Buildable, work: Work, gpus_per_trial: float) -> Any:
    """`TrialWorker` with what it needs in the object store, and what it needs of a node."""
    return tune.with_resources(
        tune.with_parameters(
            TrialWorker,
            shared=shared,
            work=work,
            gpu=gpus_per_trial > 0,
            trial_seconds=queue.limit,
            own_rivals=queue.own_rivals,
        ),
        {"cpu": 1, "gpu": gpus_per_trial},
    )
