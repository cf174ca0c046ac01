"""A folder with one real sweep in it, for the faults: starts commands and waits for a random moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.faults.counts import Reference, Result, count
from sweep.storage.reader import read_sweep

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "sweep.cli"]
NAME = "s"
TITLES = ("ray::TrialWorker", "ray::ResourceTrainable")
"""What a trial worker calls itself while it waits, and while it works."""
T = TypeVar("T")
PATIENCE_SECONDS = 300.0
WORKERS = ("--workers", "2")


class MissedError(Exception):
    """The sweep was over before the fault: this repetition does not count."""


def space(ratios: int = 85, criterion: str = "l1", **more: str) -> tuple[str, ...]:
    """Words for four trials at each of so many ratios on the digits, 340 by default, of some milliseconds each."""
    values = ",".join(f"{(n + 10) / 100:g}" for n in range(ratios))
    changes = {"criterion": criterion, "ratio": f"[{values}]", **more}
    return ("digits-quick", *(word for key, value in changes.items() for word in ("--set", f"{key}={value}")))


@dataclass
class Bed:
    """Where one repetition happens.

    Args:
        folder: the commands' working directory.
        rng: of the random moments.
        words: of the space and its search.
        reference: of the undisturbed sweep.
    """

    folder: Path
    rng: random.Random
    words: tuple[str, ...]
    reference: Reference
    database: Path = field(init=False)
    environment: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = self.folder / "results" / "mlflow.db"

    def begin(self, *words: str, name: str = NAME, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start ``sweep run`` on the space."""
        return self.start("run", *self.words, *WORKERS, "--name", name, *words, before=before)

    def start(
        self, *words: str, before: Sequence[str] = (), command: Sequence[str] = COMMAND
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own; what it prints goes to a file."""
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)}
        with (self.folder / f"out-{len(self._started)}.txt").open("wb") as out:
            process = subprocess.Popen(
                [*before, *command, *words],
                cwd=self.folder,
                env={**os.environ, **quiet, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], code: int = 0) -> None:
        """Wait for a command; note it as a problem when it ends with another code, prints a traceback or hangs."""
        number = self._started.index(process)
        try:
            found: int | str = process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            found = f"nothing in {PATIENCE_SECONDS:g} s"
            process.kill()
            process.wait()
        text = (self.folder / f"out-{number}.txt").read_text(errors="replace")
        if found != code or "Traceback" in text:
            words = " ".join([str(word) for word in process.args][-3:])  # type: ignore[union-attr]
            self.problems.append(f"command {number} (… {words}) ended with {found}, not {code}: {text[-1500:]}")

    def call(self, *words: str, code: int = 0) -> None:
        """Run a command to its end."""
        self.end(self.start(*words), code)

    def wait_for(self, condition: Callable[[], T], process: subprocess.Popen[bytes]) -> T:
        """Return what ``condition`` gives as soon as that is true, while ``process`` runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MissedError(f"the sweep ended with {process.returncode} before its fault")
            time.sleep(0.005)
        return found

    def stored(self, name: str = NAME) -> int:
        """Bytes of records so far."""
        trials = self.folder / "results" / name / "trials.jsonl"
        return trials.stat().st_size if trials.exists() else 0

    def middle(self, process: subprocess.Popen[bytes], name: str = NAME) -> None:
        """Wait for a random moment among the trials."""
        wanted = self.rng.uniform(0.0, 0.8) * self.reference.size
        self.wait_for(lambda: self.stored(name) > wanted, process)
        time.sleep(self.rng.uniform(0.0, 0.3))
        self.require(process)

    def any_time(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a random moment: while the sweep prepares itself, among its trials, or while it closes its books."""
        phase = self.rng.choices(("start", "middle", "end"), (1, 3, 1))[0]
        if phase == "middle":
            self.middle(process)
            return
        info = self.folder / "results" / NAME / "sweep.json"
        size = self.reference.size
        self.wait_for(info.exists if phase == "start" else lambda: self.stored() > 0.99 * size, process)
        time.sleep(self.rng.uniform(0.0, 6.0 if phase == "start" else 3.0))
        self.require(process)

    def require(self, process: subprocess.Popen[bytes]) -> None:
        """Raise `MissedError` when the sweep is over."""
        if process.poll() is not None:
            raise MissedError(f"the sweep ended with {process.returncode} before its fault")

    def workers(self, process: subprocess.Popen[bytes]) -> list[int]:
        """The trial workers of a sweep's own Ray that are alive."""
        return [pid for pid, words in processes(process.pid) if words.startswith(TITLES)]

    def look(self, name: str = NAME, failed: Iterable[str] = ()) -> Result:
        """Count what is left of sweep ``name``; the trials ``failed`` should have failed at the time limit."""
        return count(self.folder / "results", name, self.database, self.reference, failed)

    def clear(self) -> None:
        """Kill every process that was started here and whatever they started."""
        for process in self._started:
            for pid, _ in processes(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


class References:
    """Undisturbed sweeps, each run once; the first one trains the network that all others find in their cache."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._known, self._lock = folder, dict[tuple[str, ...], Reference](), threading.Lock()

    def get(self, words: tuple[str, ...]) -> Reference:
        """The undisturbed sweep of a space and search."""
        with self._lock:
            if words not in self._known:
                name = f"undisturbed-{len(self._known)}"
                bed = Bed(self._folder, random.Random(0), words, Reference([], 0, self._folder))
                try:
                    bed.end(bed.begin(name=name))
                finally:
                    bed.clear()
                assert not bed.problems, bed.problems
                results = self._folder / "results"
                records = read_sweep(results, name, whole=True).records
                failed = {record.reason for record in records if record.status == "failed"}
                assert not failed, f"trials failed in the undisturbed sweep: {failed}"
                self._known[words] = Reference(records, bed.stored(name), results / ".baselines")
            return self._known[words]


@contextlib.contextmanager
def make_bed(references: References, words: tuple[str, ...], seed: str, disk: str = "") -> Iterator[Bed]:
    """A new bed, gone with all its processes after the block.

    Args:
        references: of undisturbed sweeps.
        words: of the space and its search.
        seed: of the random moments.
        disk: size of a disk of its own for the results, e.g. ``64m``; needs root.
    """
    reference = references.get(words)
    folder = Path(tempfile.mkdtemp(prefix="ft", dir="/tmp"))  # short: sockets' paths have at most 107 characters
    results = folder / "results"
    results.mkdir()
    bed = Bed(folder, random.Random(seed), words, reference)
    try:
        if disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "none", results], check=True)
        shutil.copytree(reference.baselines, results / ".baselines")
        yield bed
    finally:
        bed.clear()
        if disk:
            subprocess.run(["umount", "-l", results], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def processes(session: int) -> list[tuple[int, str]]:
    """Processes of a session that are no zombies: ids and command lines."""
    words = ["ps", "-ww", "-o", "pid=,stat=,args=", "-s", str(session)]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    split = [line.split(maxsplit=2) for line in listed]
    return [(int(pid), words) for pid, state, words in split if not state.startswith("Z")]
