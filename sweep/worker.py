"""What runs on a Ray worker: a Tune trainable that keeps its workbench and takes batch after batch."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray import tune

from core.config import TrialConfig, TrialRecord

BATCH, RECORDS = "batch", "records"
SLICE_SECONDS = 2.0


class Buildable(Protocol):
    """What is shared with every worker, e.g. a `SharedBench`."""

    def build(self, device: str) -> Any:
        """Make the worker's own workbench."""


class TrialWorker(tune.Trainable):
    """Runs batches of configurations one after another; reused from batch to batch.

    A step ends after `SLICE_SECONDS` or with the batch, so that finished records reach the results store soon and a
    worker that dies loses little.
    """

    def setup(  # type: ignore[override]  # Tune passes what `tune.with_parameters` was given by name
        self, config: dict[str, Any], shared: Buildable, run: Callable[[TrialConfig, Any], TrialRecord], gpu: bool
    ) -> None:
        """Build the workbench, once in the actor's life; on the CPU where Ray's GPUs are only logical ones."""
        import torch

        torch.set_num_threads(1)
        self._bench = shared.build("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self._run = run
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next batch."""
        self._waiting = deque(unpack_configs(new_config[BATCH]))
        return True

    def step(self) -> dict[str, Any]:
        """Run configurations until the time slice or the batch is over, and return their records."""
        deadline = time.perf_counter() + SLICE_SECONDS
        records: list[TrialRecord] = []
        while self._waiting and (not records or time.perf_counter() < deadline):
            records.append(self._run(self._waiting.popleft(), self._bench))
        return {RECORDS: [record.model_dump_json() for record in records], "done": not self._waiting}


def pack_configs(configs: Sequence[TrialConfig]) -> str:
    """A batch as one JSON string: Tune copies, flattens and prints whatever is not a leaf."""
    return json.dumps([config.model_dump(mode="json") for config in configs])


def unpack_configs(text: str) -> list[TrialConfig]:
    """Undo `pack_configs`."""
    return [TrialConfig.parse(values) for values in json.loads(text)]
