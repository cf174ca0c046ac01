"""The table of faults, and how each is injected into a running sweep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.bed import NAME, Bed, space
from benchmarks.faults.server import served
from tests.sweep.clusters import cluster
from tests.sweep.hanging_model import PYTHON, C

GRID = space()
SHORT = space(25)
HUNG = space(decomposition='["least-squares"]')
TPE = (*GRID, "--search", "tpe", "--samples", "120", "--seed", "7")


@dataclass(frozen=True)
class Scenario:
    """One kind of fault.

    Args:
        title: what happens; how: the way it is injected.
        act: injects it into a bed and brings the sweep to its end.
        words: of the space and its search.
        disk: size of a disk of the sweep's own, see `make_bed`.
        failed: for trials that are meant to fail: which, from the bed.
        names: of the sweeps that are looked at.
    """

    title: str
    how: str
    act: Callable[[Bed], None]
    words: tuple[str, ...] = GRID
    disk: str = ""
    failed: Callable[[Bed], Sequence[str]] = lambda bed: ()
    names: tuple[str, ...] = (NAME,)


def kill_workers(bed: Bed, times: int, all_at_once: bool = False) -> None:
    """Kill -9 a random worker (or all of them), so many times."""
    process = bed.begin()
    for number in range(times):
        bed.middle(process) if number == 0 else time.sleep(bed.rng.uniform(0.0, 0.5))
        alive = bed.wait_for(lambda: bed.workers(process), process)
        for pid in alive if all_at_once else [bed.rng.choice(alive)]:
            os.kill(pid, signal.SIGKILL)
    bed.end(process)


def worker(bed: Bed) -> None:
    """A random worker dies."""
    kill_workers(bed, 1)


def several_workers(bed: Bed) -> None:
    """Three workers die, one after the other."""
    kill_workers(bed, 3)


def all_workers(bed: Bed) -> None:
    """All workers die at once."""
    kill_workers(bed, 1, all_at_once=True)


def driver(bed: Bed) -> None:
    """The driver dies at any time, and the sweep is resumed."""
    process = bed.begin()
    bed.any_time(process)
    process.kill()
    bed.end(process, -signal.SIGKILL)
    bed.call("resume", NAME)


def driver_twice(bed: Bed) -> None:
    """The driver dies, and so does the one that resumes."""
    process = bed.begin()
    bed.middle(process)
    process.kill()
    bed.end(process, -signal.SIGKILL)
    before = bed.stored()
    process = bed.start("resume", NAME)
    if bed.rng.random() < 0.5:
        time.sleep(bed.rng.uniform(0.0, 8.0))  # while it prepares itself, mostly
    else:
        bed.wait_for(lambda: bed.stored() > before, process)
    bed.require(process)
    process.kill()
    bed.end(process, -signal.SIGKILL)
    bed.call("resume", NAME)


def control_c(bed: Bed) -> None:
    """Ctrl-C, and the sweep is resumed."""
    process = bed.begin()
    bed.middle(process)
    process.send_signal(signal.SIGINT)
    bed.end(process, 130)
    bed.call("resume", NAME)


def stop(bed: Bed) -> None:
    """``sweep stop`` from another process, and the sweep is resumed."""
    process = bed.begin()
    bed.middle(process)
    bed.call("stop", NAME)
    bed.end(process)
    bed.call("resume", NAME)


def time_limit(bed: Bed) -> None:
    """The time is over, and the sweep is resumed with more of it."""
    bed.end(bed.begin("--time-limit", f"{bed.rng.uniform(1.0, 8.0):.2f}s"))
    bed.call("resume", NAME, "--time-limit", "10m")


def node(bed: Bed) -> None:
    """One of two nodes is lost."""
    with cluster(nodes=2) as made:
        bed.environment = made.environment
        process = bed.begin("--address", made.address, before=made.beside_head([]))
        bed.middle(process)
        made.nodes[1].kill()
        bed.end(process)


def server_away(bed: Bed) -> None:
    """MLflow's server is killed and comes back after some seconds."""
    with served(bed) as server:
        process = bed.begin("--tracking-uri", server.uri)
        bed.middle(process)
        time.sleep(bed.rng.uniform(0.0, 3.0))
        bed.require(process)
        server.kill()
        time.sleep(bed.rng.uniform(0.0, 5.0))
        server.start()
        bed.end(process)
        if bed.look().lost:  # it was away for too long; the sweep has said so
            bed.notes.append("sweep sync")
            bed.call("sync", NAME)


def server_gone(bed: Bed) -> None:
    """MLflow's server comes back after the sweep, which is then synced."""
    with served(bed) as server:
        process = bed.begin("--tracking-uri", server.uri)
        bed.middle(process)
        server.kill()
        bed.end(process)
        server.start()
        bed.call("sync", NAME)


def disk_full(bed: Bed) -> None:
    """Another program fills the disk; later it is freed."""
    process = bed.begin()
    bed.middle(process)
    filler = bed.folder / "results" / "filler"
    fill(filler)
    bed.end(process, 1)
    filler.unlink()
    bed.call("resume", NAME)


def fill(path: Path) -> None:
    """Write zeros until the disk is full to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


def hang(bed: Bed) -> None:
    """Two trials hang, one in Python and one in C."""
    sizes = bed.rng.sample(range(30, 260, 3), 2)
    bed.environment |= {PYTHON: str(sizes[0]), C: str(sizes[1])}
    checkpoint = next((bed.folder / "results" / ".baselines").iterdir())
    network = ["--set", "baseline.model=tests.sweep.hanging_model:make", "--set", f"baseline.checkpoint={checkpoint}"]
    bed.end(bed.begin(*network, "--trial-timeout", "1.5s"))


def hung(bed: Bed) -> list[str]:
    """The trials that hang: those that keep so many channels of ``ip1``."""
    sizes = {int(bed.environment[name]) for name in (PYTHON, C)}
    return [record.key for record in bed.reference.records if len(record.sites[0]["kept"]) in sizes]


def two_sweeps(bed: Bed) -> None:
    """Two sweeps share a results folder."""
    both = [bed.begin("--workers", "1", name=name) for name in (NAME, "other")]
    for process in both:
        bed.end(process)


def same_name(bed: Bed) -> None:
    """A sweep of the same name is begun or resumed while one runs."""
    process = bed.begin()
    bed.middle(process)
    second = bed.rng.choice((bed.begin, lambda: bed.start("resume", NAME)))()
    bed.wait_for(lambda: second.poll() is not None, process)  # resuming what is over is allowed
    bed.end(second, 2)
    bed.end(process)


SCENARIOS = {
    "worker": Scenario("a worker dies", "kill -9 of a random trial worker", worker),
    "workers": Scenario("several workers die", "kill -9 of three, one after the other", several_workers),
    "all-workers": Scenario("all workers die", "kill -9 of all at once", all_workers),
    "node": Scenario("a node is lost", "kill -9 of all processes of one of two nodes", node),
    "driver": Scenario("the driver dies", "kill -9 of `sweep run`, at its start and end too; `sweep resume`", driver),
    "driver-twice": Scenario("it dies again", "kill -9, then kill -9 of `sweep resume`; `sweep resume`", driver_twice),
    "server": Scenario(
        "the MLflow server is away",
        "kill -9, started again after some seconds; if it gave up, `sweep sync`",
        server_away,
        SHORT,
    ),
    "server-gone": Scenario("it does not come back", "kill -9; much later `sweep sync`", server_gone, SHORT),
    "disk-full": Scenario("the disk is full", "another program fills it; freed, `sweep resume`", disk_full, disk="64m"),
    "hang": Scenario("two trials hang", "one sleeps, one loops in C; `--trial-timeout`", hang, HUNG, failed=hung),
    "ctrl-c": Scenario("Ctrl-C", "SIGINT; `sweep resume`", control_c),
    "stop": Scenario("`sweep stop`", "from another process; `sweep resume`", stop),
    "time-limit": Scenario("`--time-limit`", "of 1 to 8 s; `sweep resume`", time_limit),
    "two-sweeps": Scenario(
        "two sweeps at once", "on one results folder; the worse one is counted", two_sweeps, names=(NAME, "other")
    ),
    "same-name": Scenario("one name twice", "`run` or `resume` while it runs: exit code 2", same_name),
    "tpe": Scenario("a TPE search dies", "kill -9; `sweep resume` draws the same trials", driver, TPE),
    "tpe-race": Scenario("a racing TPE search dies", "the same with `--race`", driver, (*TPE, "--race")),
}
