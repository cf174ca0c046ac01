"""One repetition of a scenario, in a bed of its own, compared with an undisturbed sweep."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.bed import MissedError, References, make_bed
from benchmarks.faults.counts import Result
from benchmarks.faults.scenarios import Scenario

TRIES = 5


def perform(scenario: Scenario, references: References, seed: str) -> Result:
    """One repetition; where the sweep was over before the fault, another moment is drawn."""
    for attempt in range(TRIES):
        started = time.monotonic()
        with make_bed(references, scenario.words, f"{seed}-{attempt}", scenario.disk) as bed:
            try:
                scenario.act(bed)
            except MissedError:
                if bed.problems:
                    raise
                continue
            failed = scenario.failed(bed)
            looks = [bed.look(name, failed) for name in scenario.names]
            worst = min(looks, key=lambda result: result.perfect)
            seconds = time.monotonic() - started
            return dataclasses.replace(worst, problems=tuple(bed.problems), notes=tuple(bed.notes), seconds=seconds)
    raise MissedError(f"the fault came too late {TRIES} times")


@contextmanager
def undisturbed() -> Iterator[References]:
    """A place for the sweeps that everything is compared with."""
    with tempfile.TemporaryDirectory(prefix="ft", dir="/tmp") as folder:
        yield References(Path(folder))
