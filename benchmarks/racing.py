"""What racing saves: the sweep lenet-fashion-mnist without and with ``--race``, and whether the fronts are the same.

Run: ``python -m benchmarks.racing``. Twice 297 trials on 10,000 test images, 2 workers of one thread each; the original
network is trained first. Prints images, seconds and their ratios, all from this run. Seconds of evaluation are those
of all trials together; they include counting sizes and, for a trial that is not stopped, measuring its latency. The
sweep's seconds go from its first trial's start to its last one's end. Most of them are compression, which stays.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._sweeps import run_sweep
from core.metrics import KNOWN_FRACTIONS
from core.pareto import hypervolume, pareto_front
from core.records import TrialRecord

SPACE, WORKERS = "lenet-fashion-mnist", 2


def fronts(records: Sequence[TrialRecord]) -> list[list[tuple[float, float]]]:
    """The fronts over each of the sizes, as (fraction left, accuracy)."""
    return [[(r.metrics[x], r.metrics["accuracy"]) for r in pareto_front(records, x)] for x in KNOWN_FRACTIONS]


def spent(records: Sequence[TrialRecord]) -> tuple[float, float, float]:
    """Images evaluated, seconds of evaluation, seconds of the sweep."""
    start, end = min(r.started_at for r in records), max(r.started_at + r.seconds for r in records)
    return sum(r.images for r in records), sum(r.evaluate_seconds for r in records), end - start


def both(*words: str) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """The records of the sweep without a race and with one; ``words`` are more of its options."""
    with tempfile.TemporaryDirectory(prefix="bench-racing-") as folder:
        all_words = (SPACE, "--workers", str(WORKERS), *words)
        full, raced = (run_sweep(Path(folder), *all_words, *options)[0] for options in ((), ("--race",)))
    return full, raced


def main() -> None:
    """Print the table; exit with 1 when the fronts differ."""
    full, raced = both()
    print(f"{SPACE}, {len(full)} trials, {WORKERS} workers      without       with    ratio")
    for what, before, after in zip(
        ("images evaluated", "seconds of evaluation", "seconds of the sweep"), spent(full), spent(raced), strict=True
    ):
        print(f"  {what:42s} {before:12,.0f} {after:10,.0f} {before / after:7.2f}x")
    stopped = sum(r.status == "stopped" for r in raced)
    print(f"  {'trials stopped early':42s} {0:12} {stopped:10}")
    print(f"  {'hypervolume':42s} {hypervolume(full):12.4f} {hypervolume(raced):10.4f}")
    front = fronts(full)
    same = fronts(raced) == front
    print(f"  front over params, MACs and bytes: {'the same' if same else 'NOT THE SAME'} ({len(front[0])} networks)")
    sys.exit(not same)


if __name__ == "__main__":
    main()
