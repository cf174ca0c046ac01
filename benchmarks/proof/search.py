"""How much of the front each planner has found after so many trials, over seeds: the planners of `sweep run` itself.

Trials are looked up in a table that every planner fills as it asks, so that a configuration runs once for all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.proof.originals import original
from benchmarks.proof.setting import CALIBRATION, Section, Setting, Table
from core.config import TrialConfig
from core.pareto import hypervolume, pareto_front
from core.records import TrialRecord
from core.trial import run_trial
from core.workbench import Workbench
from search_spaces import SearchSpace, parse_space
from sweep.backend.start import budget_hints
from sweep.search.base import Plan, make_planner

NET = "MLP, four hidden layers"
TRIALS = 96
LOOKS = (8, 24, 48, 96)
POOL = 10_000
JUDGED = 2_000
GRID = (0.3, 0.6, 0.9)
"""Ratios of each layer, so that the grid of four layers has about as many trials as the others."""
PLANNERS: dict[str, tuple[str, bool]] = {
    "grid": ("grid", False),
    "random": ("random", False),
    "TPE": ("tpe", False),
    "NSGA-II": ("nsga2", False),
    "NSGA-II from the budget": ("nsga2", True),
}
"""Name on the page -> algorithm, and whether it begins with what budgets of six sizes say."""
PICTURE = "proof-search.png"
Curves = Mapping[str, Sequence[Sequence[float]]]
"""Planner -> of each seed the hypervolume after 1, 2, … trials."""


def section(setting: Setting) -> Section:
    """The section of the page."""
    seeds = range(9 if setting.full else 5)
    net = original(NET, setting)
    bench = workbench(setting, net.model)
    known: dict[str, TrialRecord] = {}
    names = layers(bench)
    clock = time.perf_counter()
    hints = budget_hints(space(names, "nsga2", from_budget=True), bench)
    spent = time.perf_counter() - clock
    curves: dict[str, list[list[float]]] = {}
    for name, (algorithm, from_budget) in PLANNERS.items():
        asked = space(names, algorithm, from_budget=from_budget)
        for seed in seeds if algorithm != "grid" else [0]:
            print(f"search: {name}, seed {seed}, {len(known)} trials known", file=sys.stderr, flush=True)
            records = replay(Plan(asked, seed, hints=hints if from_budget else ()), bench, known)
            curves.setdefault(name, []).append(volumes(records))
    everything = list(known.values())
    best = hypervolume(everything)
    draw(curves, best, setting)
    judged = len(bench.labels)
    return Section(
        f"{NET}, weights {net.checksum}, {judged:,} validation images, {CALIBRATION} training images, seeds 0 to"
        f" {seeds[-1]}",
        [
            f"A ratio for each of the {len(names)} layers, `obs` and `least-squares`. Hypervolume of accuracy over the"
            f" share of the parameters left, in percent of that of all {len(everything):,} different trials together"
            f" ({best:.2f}, {len(pareto_front(everything))} on the front): median, and from the least to the largest of"
            f" the seeds. The optimisers draw {Plan(asked, 0).lag} trials ahead, as in a sweep; the grid"
            f" has {len(GRID)} ratios a layer. The budgets' answers took {spent:.1f} s, as long as"
            f" {spent / statistics.fmean(r.seconds for r in everything):.0f} trials, which no column counts.",
            table(curves, best),
            said(curves, best),
            f"![Hypervolume over trials, median and range of the seeds]({PICTURE})",
        ],
        ["optuna"],
    )


def workbench(setting: Setting, model: Any) -> Workbench:
    """The network on validation images, with training images to calibrate with."""
    dataset = setting.dataset
    images, labels = dataset.inputs("validation", JUDGED)
    pool = dataset.normalise(dataset.train.images[:POOL])
    return Workbench(model=model, images=images, labels=labels, train_images=pool, split="validation").with_original()


def layers(bench: Workbench) -> list[str]:
    """The first producer of each channel set."""
    return [chosen.producers[0] for chosen in bench.prepared.channels.sets]


def space(names: Sequence[str], algorithm: str, *, from_budget: bool) -> SearchSpace:
    """A ratio for each layer."""
    axis: dict[str, Any] = {"values": list(GRID)} if algorithm == "grid" else {"low": 0.0, "high": 0.95, "step": 0.05}
    search = {"algorithm": algorithm, "samples": TRIALS, "start": "budget" if from_budget else ""}
    document = {
        "name": "proof",
        "description": "a ratio for each layer",
        "baseline": {"model": "benchmarks.proof.nets:mlp", "dataset": "fashion-mnist"},
        "search": search,
        "fixed": {"allocation": "per-site", "criterion": "obs", "decomposition": "least-squares"},
        "axes": {f"ratios.{name}": axis for name in names},
    }
    return parse_space(document, "proof")


def replay(plan: Plan, bench: Workbench, known: dict[str, TrialRecord]) -> list[TrialRecord]:
    """The records in the order in which the planner asked for them; new ones are run and kept in ``known``."""
    return asked_of(plan, lambda config: run_trial(config, bench), known)


def asked_of(plan: Plan, run: Callable[[TrialConfig], TrialRecord], known: dict[str, TrialRecord]) -> list[TrialRecord]:
    """The same with any way to run a trial."""
    planner, records = make_planner(plan), list[TrialRecord]()
    while (config := planner.ask()) is not None:
        if config.key not in known:
            known[config.key] = run(config)
        records.append(known[config.key])
        planner.tell(records[-1])
    return records


def volumes(records: Sequence[TrialRecord]) -> list[float]:
    """Hypervolume of the first 1, 2, … records."""
    return [hypervolume(records[: i + 1]) for i in range(len(records))]


def at(curve: Sequence[float], trials: int) -> float:
    """A curve after so many trials, or at its end."""
    return curve[min(trials, len(curve)) - 1]


def table(curves: Curves, best: float) -> Table:
    """Shares of the best hypervolume, percent."""
    rows = []
    for name, seeds in curves.items():
        cells = []
        for trials in LOOKS:
            shares = [100 * at(curve, trials) / best for curve in seeds]
            spread = f" ({min(shares):.1f}–{max(shares):.1f})" if len(shares) > 1 else ""
            cells.append(f"{statistics.median(shares):.1f}{spread}")
        rows.append([name, *cells])
    return Table(["planner", *(f"{trials} trials" for trials in LOOKS)], rows)


def said(curves: Curves, best: float) -> str:
    """Who is best at the end, and how long the others take for what the budget begins with."""
    ends = {name: statistics.median(at(curve, TRIALS) for curve in seeds) for name, seeds in curves.items()}
    order = sorted(ends, key=lambda name: -ends[name])
    seeded = "NSGA-II from the budget"
    start = statistics.median(at(curve, LOOKS[0]) for curve in curves[seeded])
    waits = []
    for name, seeds in curves.items():
        if name == seeded:
            continue
        reached = [next((i + 1 for i, v in enumerate(curve) if v >= start), None) for curve in seeds]
        known = sorted(r for r in reached if r is not None)
        many = f"after {known[len(known) // 2]} trials" if known else "never"
        waits.append(f"{name} {many} ({len(known)} of {len(seeds)} seeds)")
    first = order[0]
    verdict = "is the best at the end" if first == seeded else f"is not the best at the end, {first} is"
    behind = [name for name in ends if name not in ("grid", "random") and ends[name] <= ends["random"]]
    against = f" Against us: {' and '.join(behind)} end behind random draws." if behind else ""
    return (
        f"After {TRIALS} trials, best first: {', '.join(f'{name} {100 * ends[name] / best:.1f}' for name in order)}."
        f" {seeded} {verdict}. What it has after {LOOKS[0]} trials ({100 * start / best:.1f}) the others reach: "
        f"{'; '.join(waits)}.{against}"
    )


def draw(curves: Curves, best: float, setting: Setting) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    from dashboards.palette import COLOURS

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, seeds), colour in zip(curves.items(), COLOURS, strict=False):
        length = min(len(curve) for curve in seeds)
        columns = [[100 * curve[i] / best for curve in seeds] for i in range(length)]
        x = range(1, length + 1)
        axes.plot(x, [statistics.median(column) for column in columns], color=colour, label=name)
        axes.fill_between(
            x, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xlabel="trials", ylabel="hypervolume, % of all trials together", ylim=(70, 101))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(setting.pictures / PICTURE, dpi=100)
