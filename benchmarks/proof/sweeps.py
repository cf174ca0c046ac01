"""What a sweep costs: trials per second over workers and over trials, where the time goes, and what racing saves."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import racing, scale, throughput
from benchmarks._sweeps import Memory, ends, rate, run_sweep, untrained
from benchmarks.proof.originals import configuration, original
from benchmarks.proof.setting import Section, Setting, Table
from core.baselines import cache_path
from core.metrics import KNOWN_FRACTIONS
from core.pareto import hypervolume
from core.records import TrialRecord

CASE = throughput.CASES[0]
WORKERS = (1, 2, 4)
TRIALS = {False: 200, True: 2000}
"""Trials of a sweep that workers are compared on, in the quick proof and in the full one."""
LONG = {False: (1500, 400), True: (10_000, 1500)}
"""Trials of the long sweep, and over how many its pace is taken."""
FIRST, LAST = 0.1, 0.9
"""Rates are those between these shares of the trials: start and end are other matters."""


@dataclass(frozen=True)
class Paced:
    """A sweep with so many workers.

    Attributes:
        workers: how many.
        rate: trials per second.
        cpu: CPU seconds of a trial, those of all processes of the sweep.
        evaluating: share of the workers' time in which they evaluate.
        merging: share in which they do the rest of a trial: choose, merge, cut, count.
    """

    workers: int
    rate: float
    cpu: float
    evaluating: float
    merging: float

    @property
    def rest(self) -> float:
        """Share of the workers' time outside trials: waiting, records, messages."""
        return 1 - self.evaluating - self.merging


def section(setting: Setting) -> Section:
    """The section of the page."""
    trials, (long, window) = TRIALS[setting.full], LONG[setting.full]
    images = len(setting.dataset.test)  # data that is missing says so here
    parts = [
        *_workers(trials),
        *_length(long, window),
        *_raced(*racing.both("--set", f"baseline.checkpoint={checkpoint(setting)}")),
    ]
    return Section(f"Ray Tune and MLflow on one machine, {images:,} test images a trial", parts, ["ray", "mlflow"])


def checkpoint(setting: Setting) -> Path:
    """The trained LeNet's file."""
    original("LeNet-300-100", setting)
    config = configuration("LeNet-300-100")
    return cache_path(config, config.key, setting.cache)


def paced(records: Sequence[TrialRecord], memory: Memory, workers: int) -> Paced:
    """Where the time of ``workers`` went, of what they made, between `FIRST` and `LAST`."""
    done = sorted(records, key=lambda record: record.started_at + record.seconds)
    times = ends(done)
    found = rate(times, FIRST, LAST)
    low, high = int(FIRST * len(times)), int(LAST * len(times)) - 1
    cpu = memory.cpu_seconds(times[low], times[high]) / (high - low)
    own = done[int(FIRST * len(done)) : int(LAST * len(done))]
    trial, evaluation = (sum(getattr(r, name) for r in own) / len(own) for name in ("seconds", "evaluate_seconds"))
    return Paced(workers, found, cpu, evaluation * found / workers, (trial - evaluation) * found / workers)


def _workers(trials: int) -> list[str | Table]:
    case = throughput.Case(CASE.space, CASE.model, trials, CASE.least)
    load, found = os.getloadavg()[0], list[Paced]()
    with tempfile.TemporaryDirectory(prefix="proof-sweeps-") as folder:
        weights = untrained(case.model, 10, Path(folder))
        pace, _, bare = throughput.bare(case, weights, Path(folder))
        for workers in WORKERS:
            words = [*case.words(weights), "--workers", str(workers)]  # the last one counts
            found.append(paced(*run_sweep(Path(folder), *words), workers))
    rows = [
        [
            f"{p.workers}",
            f"{p.rate:.1f}",
            f"{p.rate / found[0].rate:.2f}",
            f"{1e3 * p.cpu:.0f} ({p.cpu / bare:.2f})",
            *(f"{100 * share:.0f} %" for share in (p.evaluating, p.merging, p.rest)),
        ]
        for p in found
    ]
    said = (
        f"### Workers\n\n{trials} trials of `{case.space}` (random search, `none` and `most-similar`, an untrained"
        " LeNet), as a sweep with records and MLflow runs. *CPU* is that of all processes, the driver's, Ray's and"
        f" MLflow's too; in brackets multiples of {1e3 * bare:.0f} ms, which a trial takes {throughput.WORKERS} bare"
        f" processes that do the same in a loop, without a sweep ({pace:.1f} trials/s). *Evaluation*, *merging* (all of"
        " a trial that is not evaluation) and *the rest* (records, messages, waiting for the driver) are shares of the"
        " workers' time."
    )
    head = ["workers", "trials/s", "of one worker", "CPU, ms a trial", "evaluation", "merging", "the rest"]
    return [said, Table(head, rows), company(load, os.cpu_count() or 1)]


def company(load: float, cores: int) -> str:
    """What other work on the machine means for the table: ``load`` is what ran before, on average."""
    if load < 0.5:
        return f"Nothing else ran on the {cores} cores."
    return (
        f"**Not alone**: {load:.1f} other processes were running on the {cores} cores when this began. A second worker"
        " then gains less than on idle cores, and one worker has less than a core: paces and their scaling are those of"
        " a busy machine; CPU and shares hold anywhere."
    )


def _length(trials: int, window: int) -> list[str | Table]:
    records, memory = scale.swept(trials)
    looks = [scale.START + window, (scale.START + window + trials) // 2, trials]
    pace = scale.paces(ends(records), looks, window)
    times = ends(records)
    cpu = [memory.cpu_seconds(times[end - 1 - window], times[end - 1]) / window for end in looks]
    rows = [
        [f"{end - window:,} to {end:,}", f"{value:.1f}", f"{1e3 * spent:.1f}", f"{spent / cpu[0]:.2f}"]
        for end, value, spent in zip(looks, pace, cpu, strict=True)
    ]
    said = (
        f"### Number of trials\n\nA sweep of {trials:,} trials of a few milliseconds (`digits-quick`, random search, 2"
        f" workers): does a late trial cost more than an early one? The driver has {memory.driver:.0f} MB at most."
    )
    return [said, Table(["trials", "trials/s", "CPU, ms a trial", "of an early one"], rows)]


def _raced(full: Sequence[TrialRecord], raced: Sequence[TrialRecord]) -> list[str | Table]:
    """What a race saves, and what of the front is lost."""
    whats = ("images evaluated", "seconds of evaluation", "seconds of the sweep")
    rows = [
        [what, f"{before:,.0f}", f"{after:,.0f}", f"{before / after:.2f}"]
        for what, before, after in zip(whats, racing.spent(full), racing.spent(raced), strict=True)
    ]
    rows.append(["trials stopped early", "0", f"{sum(r.status == 'stopped' for r in raced)}", ""])
    rows.append(["hypervolume", f"{hypervolume(full):.4f}", f"{hypervolume(raced):.4f}", ""])
    lost = [
        len(set(before) - set(after)) for before, after in zip(racing.fronts(full), racing.fronts(raced), strict=True)
    ]
    sizes = [len(front) for front in racing.fronts(full)]
    of = ", ".join(
        f"{gone} of {size} over {name}" for gone, size, name in zip(lost, sizes, KNOWN_FRACTIONS, strict=True)
    )
    said = (
        f"### Racing\n\n`{racing.SPACE}`, all {len(full)} trials, without and with `--race`, which stops a trial once"
        " it cannot reach the front any more. Of a stopped one there is a bound and an estimate instead of an accuracy."
    )
    whole = racing.spent(full)[2] / racing.spent(raced)[2]
    verdict = f"Networks of the front that racing loses: {of}."
    if whole < 1.1:
        verdict += f" Against us: the sweep is only {whole:.2f} times as fast by it, since most of it is merging."
    return [said, Table(["", "without", "with", "ratio"], rows), verdict]
