"""The command line as a user runs it, for tests of whole sweeps."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "sweep.cli"]


def environment() -> dict[str, str]:
    """This one, with the sources on Python's path, and no width of a terminal."""
    found = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**found, "PYTHONPATH": str(Path(__file__).parents[2])}


def call(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command in ``folder`` and return what it printed; it must end with ``code`` and show no traceback."""
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in ``folder``, in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], T], seconds: float = 120.0) -> T:
    """Wait until the condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def lines_of(folder: Path, name: str) -> int:
    """How many records a sweep has."""
    path = folder / "results" / name / "trials.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(folder: Path, name: str, count: int) -> None:
    """Wait until a sweep has so many records."""
    wait_for(lambda: lines_of(folder, name) >= count)


def child_keys(folder: Path, parent: str) -> list[str]:
    """The trial keys of a sweep's child runs in the embedded MLflow store, as often as they are there."""
    query = """select keys.value from tags parents join tags keys on parents.run_uuid = keys.run_uuid
               where parents.key = 'mlflow.parentRunId' and parents.value = ? and keys.key = 'sweep.trial_key'"""
    with sqlite3.connect(folder / "results" / "mlflow.db") as database:
        return [row[0] for row in database.execute(query, [parent])]
