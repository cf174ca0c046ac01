"""Hostile files of a fixed seed: every one ends in success or in one sentence, and nothing else happens.

``run("checkpoints", 1500, seed=0)`` makes so many files, gives each to the functions that read it, and counts the
outcomes. What is checked of each: no exception but this package's own, its message on one line; no file outside the
folder of the case is made or changed; no code of a pickle runs (it would leave a file); memory does not grow; and what
was accepted works. A failure names the seed and the case, and ``run(kind, 1, seed, first=number)`` repeats it alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from core.errors import NeuronMergingError

MEMORY_BYTES = 400 * 2**20
"""More than a case of a few megabytes may ever take."""
SECONDS = 60
LONGEST = 2000
FULL = {"checkpoints": 1500, "spaces": 800, "stores": 600}
"""How many cases a thorough run has."""


@dataclass(frozen=True)
class Case:
    """One hostile file, written.

    Args:
        name: what was done to it.
        uses: what reads it; each is run on its own, and raises an `AssertionError` where what it got does not work.
    """

    name: str
    uses: dict[str, Callable[[], None]]


@dataclass(frozen=True)
class Room:
    """Where a case may write (``inside``), and what must stay as it is (``outside``, the canary)."""

    inside: Path
    outside: Path

    @property
    def canary(self) -> Path:
        """A file that only the code of a pickle would make."""
        return self.outside / "canary"


Maker = Callable[[random.Random, int, Room], Case]


def run(kind: str, count: int, seed: int, first: int = 0) -> dict[str, int]:
    """Try ``count`` cases of a kind and count the outcomes: ``accepted``, or the class of the error.

    Args:
        kind: of `FULL`.
        count: how many cases.
        seed: of everything; case n of a seed is always the same.
        first: number of the first case.

    Raises:
        AssertionError: something else came out; the message names the seed, the case and the use.
    """
    make = makers()[kind]
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        for number in range(first, first + count):
            outcomes.update(attempt(make, kind, seed, number, Path(home)))
    return dict(sorted(outcomes.items()))


def makers() -> dict[str, Maker]:
    """The makers of cases by kind."""
    from tests.fuzz import files_checkpoints, files_spaces, files_stores

    return {"checkpoints": files_checkpoints.make, "spaces": files_spaces.make, "stores": files_stores.make}


def attempt(make: Maker, kind: str, seed: int, number: int, home: Path) -> Iterator[str]:
    """Make one case, use it, and yield the outcomes."""
    room = Room(home / "inside", home / "outside")
    for folder in (room.inside, room.outside):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    (room.outside / "precious").write_text("precious")
    case = make(random.Random(f"{kind} {seed} {number}"), number, room)
    before = contents(room.outside)
    for use, function in case.uses.items():
        where = f"run({kind!r}, 1, {seed}, first={number}): {case.name}: {use}"
        yield outcome(function, where)
        assert contents(room.outside) == before, f"{where}: something outside its folder was made or changed"
    assert {path.name for path in home.iterdir()} == {"inside", "outside"}, f"{where}: something was made"


def outcome(function: Callable[[], None], where: str) -> str:
    """Run one use of a case and name what came of it."""
    memory = peak()
    try:
        with within(SECONDS, where):
            function()
        result = "accepted"
    except NeuronMergingError as error:
        text = str(error)
        assert len(text.splitlines()) == 1, f"{where}: not one line: {text[:LONGEST]!r}"
        assert len(text) <= LONGEST, f"{where}: too long: {text[:LONGEST]!r}"
        result = type(error).__name__
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error
    except BaseException as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {str(error)[:500]}") from error
    grown = peak() - memory
    assert grown < MEMORY_BYTES, f"{where}: it took {grown / 2**20:.0f} MB"
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def within(seconds: int, where: str) -> Iterator[None]:
    """End a block that hangs."""

    def end(*_: object) -> None:
        raise AssertionError(f"{where}: it does not end")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what commands print off the terminal, and torch to one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.set_num_threads(threads)


def table(results: dict[str, tuple[dict[str, int], float]]) -> str:
    """Outcomes by kind, a line each."""
    lines = []
    for kind, (outcomes, seconds) in results.items():
        counted = ", ".join(f"{count} {name}" for name, count in outcomes.items())
        lines.append(f"{kind:<12} {seconds:6.1f} s  {counted}")
    return "\n".join(lines)


def main() -> None:
    """``python -m tests.fuzz.files``: all kinds, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, default=1.0, help="so many times the cases of a thorough run")
    parser.add_argument("--kind", choices=FULL, action="append")
    options = parser.parse_args()
    results = {}
    for kind in options.kind or FULL:
        started = time.perf_counter()
        outcomes = run(kind, round(FULL[kind] * options.times), options.seed)
        results[kind] = (outcomes, time.perf_counter() - started)
    print(table(results))


if __name__ == "__main__":
    main()
