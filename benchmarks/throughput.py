"""What a sweep costs beyond its trials: trials per second through Ray Tune and MLflow against bare processes.

Run: ``python -m benchmarks.throughput``. The same configurations on the same number of single-threaded processes: once
in a loop around `run_trial` and nothing else, once as ``sweep run`` with MLflow, where each is a record and a child
run. They take turns, `ROUNDS` times, with bare processes at both ends, and the means count, because machines are noisy.
Rates are those between the first and the last tenth of the trials. The networks are untrained; that changes no time.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks._sweeps import ends, rate, run_sweep, settle, untrained
from search_spaces import SearchSpace, load_space

WORKERS, ROUNDS = 2, 2


@dataclass(frozen=True)
class Case:
    """A space, how many of its trials run, and the least share of bare throughput that is good enough."""

    space: str
    model: str
    trials: int
    least: float
    changes: tuple[tuple[str, str], ...] = (
        ("decomposition", '["none", "most-similar"]'),
        ("ratio", "{low = 0.02, high = 0.95}"),
    )

    def words(self, checkpoint: Path) -> list[str]:
        """The sweep on the command line."""
        changes = (*self.changes, ("baseline.checkpoint", str(checkpoint)))
        sets = [word for key, value in changes for word in ("--set", f"{key}={value}")]
        return [self.space, "--search", "random", "--samples", str(self.trials), "--workers", str(WORKERS), *sets]

    def resolved(self, checkpoint: Path) -> SearchSpace:
        """The same space."""
        search = {"search.algorithm": "random", "search.samples": str(self.trials)}
        return load_space(self.space).override({**dict(self.changes), **search, "baseline.checkpoint": str(checkpoint)})


CASES = (
    Case("lenet-fashion-mnist", "lenet-300-100", 2000, 0.80),
    Case("vgg-fashion-mnist", "vgg-small", 120, 0.93),
)


def bare(case: Case, checkpoint: Path, results: Path) -> tuple[float, float, float]:
    """Trials per second of bare processes, the mean seconds of a trial, and its mean CPU seconds."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    ready = context.Barrier(WORKERS)
    processes = [
        context.Process(target=loop, args=(case, checkpoint, results, number, ready, queue))
        for number in range(WORKERS)
    ]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    trials, cpu = sorted(trial for own, _ in found for trial in own), sum(spent for _, spent in found)
    for process in processes:
        process.join()
    return rate([end for end, _ in trials], 0.1, 0.9), mean(seconds for _, seconds in trials), cpu / len(trials)


def loop(case: Case, checkpoint: Path, results: Path, number: int, ready: Barrier, queue: Any) -> None:
    """One bare process: its share of the configurations, one after another."""
    import torch

    from core.baselines import prepare_baseline
    from core.trial import run_trial
    from sweep.backend.workbench import make_bench
    from sweep.storage.layout import BASELINES

    torch.set_num_threads(1)
    space = case.resolved(checkpoint)
    baseline = prepare_baseline(space.baseline, results / BASELINES)
    bench = make_bench(baseline, space.evaluation.split).with_original()
    configs = list(space.random(case.trials, 0))[number::WORKERS]
    run_trial(configs[0], bench)  # what is computed once
    ready.wait()
    start = time.process_time()
    records = [run_trial(config, bench) for config in configs]
    spent = time.process_time() - start
    queue.put(([(record.started_at + record.seconds, record.seconds) for record in records], spent))


def measure(case: Case) -> bool:
    """Print one line; whether it is good enough."""
    with tempfile.TemporaryDirectory(prefix="bench-throughput-") as folder:
        results = Path(folder)
        checkpoint = untrained(case.model, 10, results)
        first, seconds, _ = bare(case, checkpoint, results)
        alone, swept = [first], []
        for _ in range(ROUNDS):
            settle()
            records, memory = run_sweep(results, *case.words(checkpoint))
            swept.append(rate(ends(records), 0.1, 0.9))
            settle()
            alone.append(bare(case, checkpoint, results)[0])
    share = mean(swept) / mean(alone)
    print(
        f"{case.model:14s} {case.trials:6d} {1e3 * seconds:10.1f} {rates(alone):>20s} {rates(swept):>14s}"
        f" {share:8.1%} {case.least:8.0%}",
        flush=True,
    )
    mapped, private = (", ".join(f"{mb:.0f}" for mb in values) for values in (memory.shared, memory.private))
    print(f"  shared data: {mapped} MB mapped by the workers, {memory.counted:.0f} MB of memory in all", flush=True)
    print(f"  private memory of the workers {private} MB, driver {memory.driver:.0f} MB", flush=True)
    return share >= case.least


def rates(values: Sequence[float]) -> str:
    """Trials per second, one run after the other."""
    return " ".join(f"{value:.2f}" for value in values)


def main() -> None:
    """Print the table; exit with 1 when a case is not good enough."""
    print("network        trials ms a trial               bare/s        sweep/s    share at least", flush=True)
    good = [measure(case) for case in CASES]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
