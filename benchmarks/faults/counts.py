"""What a fault left behind, counted from the files themselves.

Nothing here trusts the product's own summary: records are counted as lines of the file, MLflow's runs as rows of its
database, and the front is computed from what is stored and compared with that of an undisturbed sweep.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.pareto import pareto_front
from core.records import TrialRecord
from sweep.storage.layout import TRIALS
from sweep.storage.reader import read_sweep

CHILDREN = """
select key.value, runs.status from runs
join tags as parent on parent.run_uuid = runs.run_uuid and parent.key = 'mlflow.parentRunId'
join tags as key on key.run_uuid = runs.run_uuid and key.key = 'sweep.trial_key'
where parent.value = ? and runs.lifecycle_stage = 'active'
"""


@dataclass(frozen=True)
class Result:
    """What one repetition left behind.

    Args:
        expected: trials that the sweep has.
        records: lines of ``trials.jsonl``; distinct: different trials among them; damaged: lines that are none.
        runs: child runs in MLflow; distinct_runs: different trials among them; parents: runs of the sweep itself.
        half: child runs that were begun and not ended.
        same_front: as the undisturbed sweep's, trial by trial and with the same accuracies.
        same_records: all trials have the status and the accuracy of the undisturbed sweep's.
        problems: what else was not as it should be, in words.
        notes: what else happened, and may.
        seconds: of the whole repetition.
    """

    expected: int
    records: int
    distinct: int
    damaged: int
    runs: int
    distinct_runs: int
    parents: int
    half: int
    same_front: bool
    same_records: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def duplicates(self) -> int:
        """Trials that are there more than once, as records or as runs."""
        return self.records - self.damaged - self.distinct + self.runs - self.distinct_runs

    @property
    def lost(self) -> int:
        """Trials without a record, and trials without a run."""
        return 2 * self.expected - self.distinct - self.distinct_runs

    @property
    def perfect(self) -> bool:
        """Nothing lost, nothing twice, nothing torn, the same results, every command ended as it should."""
        same = self.same_front and self.same_records and self.parents == 1
        return same and not (self.lost or self.duplicates or self.damaged or self.half or self.problems)


@dataclass(frozen=True)
class Reference:
    """An undisturbed sweep.

    Args:
        records: of all its trials; size: their file's, in bytes.
        baselines: folder of its trained network.
    """

    records: list[TrialRecord]
    size: int
    baselines: Path


def count(results: Path, name: str, database: Path, reference: Reference, failed: Iterable[str] = ()) -> Result:
    """Count what is left of a sweep.

    Args:
        results: folder of all sweeps.
        name: of this one.
        database: MLflow's SQLite file.
        reference: the undisturbed sweep.
        failed: keys of the trials that should have failed at their time limit.
    """
    lines = (results / name / TRIALS).read_bytes().split(b"\n")
    trials = [line for line in lines if not line.startswith(b'{"kind":')]  # the others are of the test split
    keys, damaged = parse(trials)
    records = read_sweep(results, name).records
    runs, parents, half = runs_of(database, name)
    dead = set(failed)
    wanted = [record for record in reference.records if record.key not in dead]
    alive = [record for record in records if record.key not in dead]
    late = {record.key for record in records if record.status == "failed" and "--trial-timeout" in record.reason}
    return Result(
        expected=len(wanted) + len(dead),
        records=len(trials) - 1,
        distinct=len(set(keys)),
        damaged=damaged,
        runs=len(runs),
        distinct_runs=len(set(runs)),
        parents=parents,
        half=half,
        same_front=picture(pareto_front(alive)) == picture(pareto_front(wanted)),
        same_records=picture(alive) == picture(wanted) and late == dead,
    )


def parse(lines: Sequence[bytes]) -> tuple[list[str], int]:
    """Keys of the records, and how many lines are none; what follows the last line's end counts too."""
    keys, damaged = [], 0
    for line in filter(None, lines):
        try:
            keys.append(str(json.loads(line)["key"]))
        except (ValueError, KeyError):
            damaged += 1
    return keys, damaged


def runs_of(database: Path, name: str) -> tuple[list[str], int, int]:
    """Of a sweep in MLflow's database: the trial of each child run, how many parent runs, how many unended children."""
    if not database.exists():
        return [], 0, 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        query = connection.execute
        parents = [row[0] for row in query("select run_uuid from tags where key = 'sweep.name' and value = ?", (name,))]
        children = [row for parent in parents for row in query(CHILDREN, (parent,))]
    return [key for key, _ in children], len(parents), sum(status == "RUNNING" for _, status in children)


def picture(records: Iterable[TrialRecord]) -> dict[str, tuple[str, float | None]]:
    """What must not depend on any fault: each trial's status and accuracy."""
    return {record.key: (record.status, record.metrics.get("accuracy")) for record in records}
