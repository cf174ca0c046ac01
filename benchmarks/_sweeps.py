"""What the benchmarks of whole sweeps share: an untrained network, a sweep in a process of its own, its memory."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from core.models import load_model
from core.records import TrialRecord
from sweep.storage.reader import read_sweep

WORKER = re.compile(r"ray::(TrialWorker|ResourceTrainable)")  # idle, and at work
PERIOD, OFTEN = 8.0, 1.0
"""Seconds between looks at the memory of all processes, and at their CPU time."""
TICKS = os.sysconf("SC_CLK_TCK")


def untrained(model: str, classes: int, folder: Path) -> Path:
    """A checkpoint of ``model`` with random weights: trials take as long as with trained ones."""
    torch.manual_seed(0)
    path = folder / f"{model}.safetensors"
    save_file(load_model(model, num_classes=classes).state_dict(), path)
    return path


@dataclass
class Memory:
    """Of a running sweep, in MB, and its CPU time.

    Args:
        driver: the most that the driver had, its share of the pages that it has in common with other processes (PSS).
        resident: the most that was resident, library code that all processes have in common included (RSS).
        private: what each worker has for itself, at the last look.
        shared: what each worker maps of Ray's object store; counted: the same pages, each counted once.
        cpu: (seconds since the epoch, CPU seconds of all processes until then), about one a second.
    """

    driver: float = 0.0
    resident: float = 0.0
    private: Sequence[float] = ()
    shared: Sequence[float] = ()
    counted: float = 0.0
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def cpu_seconds(self, start: float, end: float) -> float:
        """CPU seconds of all processes of the sweep between two times, in seconds since the epoch."""

        def at(time: float) -> float:
            after = next((i for i, (t, _) in enumerate(self.cpu) if t >= time), len(self.cpu) - 1)
            (t0, c0), (t1, c1) = self.cpu[max(after - 1, 0)], self.cpu[after]
            return c1 if t1 == t0 else c0 + (c1 - c0) * (time - t0) / (t1 - t0)

        return at(end) - at(start) if self.cpu else math.nan


def run_sweep(results: Path, *words: str) -> tuple[list[TrialRecord], Memory]:
    """Run ``sweep run`` with these words and return its records and what memory it took."""
    command = [sys.executable, "-m", "sweep.cli", "run", *words, "--results", str(results), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with watched(process.pid) as memory:
        out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[2:])} ended with {process.returncode}: {err.strip()[-500:]}")
    return read_sweep(results, json.loads(out)["name"]).records, memory


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Look at a driver and its workers now and then, from a thread; looking costs them a little time."""
    memory, over, used = Memory(), threading.Event(), dict[int, float]()

    def look() -> None:
        looks = 0
        while not over.wait(OFTEN):
            used.update(cpu_of(pid))
            memory.cpu.append((time.time(), sum(used.values())))
            looks += 1
            if looks % round(PERIOD / OFTEN):
                continue
            memory.resident = max(memory.resident, megabytes("VmHWM", f"/proc/{pid}/status"))
            memory.driver = max(memory.driver, megabytes("Pss", f"/proc/{pid}/smaps_rollup"))
            workers = [private_and_shared(worker) for worker in workers_of(pid)]
            if workers and all(shared for _, shared, _ in workers):
                memory.private, memory.shared = [w[0] for w in workers], [w[1] for w in workers]
                memory.counted = sum(w[2] for w in workers)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def megabytes(key: str, path: str) -> float:
    """What a file of the system says after ``key:``; 0 where its process is gone."""
    found = re.search(rf"\b{key}:\s+(\d+) kB", text_of(path))
    return int(found[1]) / 1e3 if found else 0.0


def workers_of(session: int) -> list[int]:
    """The processes in which a private Ray, started in this session, runs trials."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if WORKER.search(line)]


def cpu_of(session: int) -> dict[int, float]:
    """CPU seconds of each process of a session, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = text_of(str(path)).rpartition(")")[2].split()  # a name may have spaces
        if len(fields) > 12 and int(fields[3]) == session:
            found[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def private_and_shared(pid: int) -> tuple[float, float, float]:
    """A process's private memory, what it maps of the object store, and its share of that, in MB."""
    private = shared = counted = 0.0
    inside = False
    for line in text_of(f"/proc/{pid}/smaps").splitlines():
        key, _, rest = line.partition(":")
        if " " in key:
            inside = "plasma" in line
        elif key.startswith("Private_"):
            private += int(rest.split()[0]) / 1e3
        elif inside and key == "Rss":
            shared += int(rest.split()[0]) / 1e3
        elif inside and key == "Pss":
            counted += int(rest.split()[0]) / 1e3
    return private, shared, counted


def text_of(path: str) -> str:
    """The text of a file of the system; nothing where its process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def ends(records: Sequence[TrialRecord]) -> list[float]:
    """When trials ended, in order, in seconds since the epoch."""
    return sorted(record.started_at + record.seconds for record in records)


def rate(times: Sequence[float], first: float, last: float) -> float:
    """Trials per second between two shares of a sweep, e.g. 0.1 and 0.9: start and end are other matters."""
    low, high = int(first * len(times)), int(last * len(times)) - 1
    return (high - low) / (times[high] - times[low])


def settle() -> None:
    """Let what ran before come to an end, for the sake of what is measured next."""
    os.sync()
    time.sleep(2.0)
