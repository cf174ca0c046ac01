"""Ten thousand trials in one sweep: does a late trial cost more than an early one, and how large does the driver grow?

Run: ``python -m benchmarks.scale [--trials 10000]``. The digits' network, trials of a few milliseconds, random search,
2 workers, MLflow on. Prints trials per second from trial 100 to 1,600 and over the 1,500 before the 5,000th and the
last one, and the driver's peak memory with torch, Ray, MLflow and the drawing of plots.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._sweeps import Memory, ends, run_sweep, untrained
from core.records import TrialRecord

LIMIT_MB = 1000.0
SLOWDOWN = 1.15
START, WINDOW = 100, 1500


def swept(trials: int) -> tuple[list[TrialRecord], Memory]:
    """The records of so many trials, and what memory they took."""
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        checkpoint = untrained("lenet-300-100", 10, Path(folder))
        words = ["--set", "ratio={low = 0.1, high = 0.9}", "--set", f"baseline.checkpoint={checkpoint}"]
        words += ["--set", 'decomposition=["none", "most-similar"]', "--workers", "2"]
        return run_sweep(Path(folder), "digits-quick", "--search", "random", "--samples", str(trials), *words)


def paces(times: Sequence[float], looks: Sequence[int], window: int) -> list[float]:
    """Trials per second over the ``window`` trials before each of ``looks``, of when trials ended."""
    return [window / (times[end - 1] - times[end - 1 - window]) for end in looks]


def main() -> None:
    """Print the figures; exit with 1 when they are not good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials
    records, memory = swept(trials)
    looks = [end for end in (START + WINDOW, 5000, trials) if end <= trials]
    early, *late = paces(ends(records), looks, WINDOW)
    print(f"{len(records)} trials; per second from {START} to {looks[0]}: {early:.1f}", flush=True)
    for end, value in zip(looks[1:], late, strict=True):
        print(f"  the {WINDOW} before trial {end}: {value:.1f}, a trial costs {early / value:.2f} of an early one")
    print(f"driver at most {memory.driver:.0f} MB (limit {LIMIT_MB:.0f})")
    print(f"  resident {memory.resident:.0f} MB, with all library code that it shares with the workers")
    sys.exit(memory.driver > LIMIT_MB or any(early / value > SLOWDOWN for value in late))


if __name__ == "__main__":
    main()
