"""Real sweeps with real faults at random moments, and what is left of them: ``python -m benchmarks.faults --help``.

Every scenario runs the same few hundred short trials through the command line, in a folder of its own, and is compared
with an undisturbed sweep (see `benchmarks.faults.counts`). `SCENARIOS` is the table of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.faults.bed import References
from benchmarks.faults.counts import Result
from benchmarks.faults.perform import perform, undisturbed
from benchmarks.faults.scenarios import SCENARIOS
from benchmarks.faults.table import write_row


def repeat(name: str, repetitions: int, references: References, seed: int, jobs: int) -> list[Result]:
    """Repetitions of one scenario, ``jobs`` at a time, each told in a line as it ends."""

    def once(number: int) -> Result:
        result = perform(SCENARIOS[name], references, f"{name}-{seed + number}")
        told = "as undisturbed" if result.perfect else str(result)
        print(f"{name} {number}: {told} ({', '.join([*result.notes, f'{result.seconds:.0f} s'])})", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(once, range(repetitions)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios and, if asked, write their rows; the exit code is 1 when any repetition was not perfect."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="repeatable (all of them)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--jobs", type=int, default=1, help="repetitions at the same time")
    parser.add_argument("--write", type=Path, help="put the rows into this file's table")
    options = parser.parse_args(arguments)
    bad = 0
    with undisturbed() as references:
        for name in options.only or SCENARIOS:
            results = repeat(name, options.repetitions, references, options.seed, options.jobs)
            bad += sum(not result.perfect for result in results)
            row = write_row(options.write, SCENARIOS[name].title, SCENARIOS[name].how, results)
            print(row, flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
