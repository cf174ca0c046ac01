"""The tables of docs/methods.md: every decomposition and criterion, allocations at equal sizes, recoveries.

Run: ``make methods-table``, which writes them between two marks of docs/methods.md. Two networks on FashionMNIST:
LeNet-300-100 as ``sweep run`` trains it, and the residual one of tests/trained.py (five blocks, three epochs). One
thread, 256 unlabelled calibration images; accuracy on all 10,000 test images in percent, and in brackets the seconds
of everything but the evaluation, where the first trial pays for what the others share.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from core.baselines import Baseline, prepare_baseline
from core.config import BaselineConfig, TrialConfig
from core.datasets import load_dataset
from core.records import TrialRecord
from core.trial import run_trial
from core.workbench import Workbench
from sweep.backend.workbench import make_bench
from sweep.storage.layout import BASELINES
from tests.trained import trained

LENET, RESIDUAL = "lenet-300-100", "residual"
CACHE = Path(".cache/trained")
CRITERIA = ("l1", "obs", "activation", "random")
RATIOS = (0.3, 0.5, 0.7)
DECOMPOSITIONS: dict[str, dict[str, Any]] = {
    "none": {"decomposition": "none"},
    "most-similar": {"decomposition": "most-similar", "options": {"threshold": 0.45}},
    "nmf, fixed": {"decomposition": "nmf"},
    "nmf, fixed, hard": {"decomposition": "nmf", "options": {"hard": True}},
    "nmf, free, hard": {"decomposition": "nmf", "options": {"rows": "free", "hard": True}},
    "ridge": {"decomposition": "ridge"},
    "folding": {"decomposition": "folding"},
    "gaussian": {"decomposition": "gaussian"},
    "gram": {"decomposition": "gram"},
    "least-squares": {"decomposition": "least-squares"},
}
LEFT = {LENET: (0.25, 0.18, 0.09), RESIDUAL: (0.25, 0.09, 0.04)}
"""Shares of the parameters that are left in the tables of allocations and recoveries."""
BUDGET = {"decomposition": "least-squares", "allocation": "budget"}
ALLOCATIONS: dict[str, dict[str, Any]] = {
    "`l1`, all sets alike": {**BUDGET, "criterion": "l1", "sharpness": 0.0},
    "`obs`, all sets alike": {**BUDGET, "criterion": "obs", "sharpness": 0.0},
    "`obs`, budget": {**BUDGET, "criterion": "obs"},
    "`obs`, budget, 4 copies": {**BUDGET, "criterion": "obs", "calibration_copies": 4},
    "`obs`, budget, 2,048 images": {**BUDGET, "criterion": "obs", "calibration_images": 2048},
}
RECOVERIES: dict[str, dict[str, Any]] = {
    "`distill`, 256 images": {"recovery": "distill"},
    "`distill`, 2,048 images": {"recovery": "distill", "calibration_images": 2048},
}
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
DOCUMENT = Path("docs/methods.md")


def baseline_of(name: str, results: Path) -> Baseline:
    """The network and its data, trained on first use."""
    if name == LENET:
        return prepare_baseline(BaselineConfig.parse({"model": name, "dataset": "fashion-mnist"}), results / BASELINES)
    dataset = load_dataset("fashion-mnist")
    CACHE.mkdir(parents=True, exist_ok=True)
    config = BaselineConfig.parse({"model": "tests.trained:resnet", "dataset": "fashion-mnist"})
    return Baseline(trained("resnet", dataset, CACHE), name, math.nan, config, dataset, "training")


def outcome(values: dict[str, Any], bench: Workbench) -> TrialRecord:
    """One trial.

    Raises:
        SystemExit: it fails.
    """
    record = run_trial(TrialConfig.parse(values), bench)
    if record.status != "finished":
        raise SystemExit(f"{values}: {record.reason}")
    print(f"{record.metrics['accuracy']:6.2f} %  {values}", file=sys.stderr, flush=True)
    return record


def cell(record: TrialRecord) -> str:
    """Accuracy, and seconds of everything but the evaluation."""
    return f"{record.metrics['accuracy']:.1f} ({record.seconds - record.evaluate_seconds:.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def tables_of(name: str, results: Path) -> Iterator[str]:
    """All tables of one network."""
    bench = make_bench(baseline_of(name, results), "test").with_original()
    yield f"### {name}: {bench.original['accuracy']:.2f} %, {bench.original['params']:,.0f} parameters"
    yield ""
    for ratio in RATIOS:
        rows = [
            [f"`{title}`", *(cell(outcome({**how, "criterion": c, "ratio": ratio}, bench)) for c in CRITERIA)]
            for title, how in DECOMPOSITIONS.items()
        ]
        yield from table([f"{100 * ratio:.0f} % of every set removed", *(f"`{c}`" for c in CRITERIA)], rows)
    left = LEFT[name]
    heads = [f"{100 * share:.0f} % of the parameters" for share in left]
    rows = [
        [title, *(cell(outcome({**how, "ratio": 1 - share}, bench)) for share in left)]
        for title, how in ALLOCATIONS.items()
    ]
    yield from table(["`least-squares`", *heads], rows)
    trained = {
        title: [outcome({**ALLOCATIONS["`obs`, budget"], **how, "ratio": 1 - share}, bench) for share in left]
        for title, how in RECOVERIES.items()
    }
    yield from table(["trained, 400 steps", *heads], [[t, *map(cell, records)] for t, records in trained.items()])
    for title, records in trained.items():
        for share, record in zip(left, records, strict=True):
            steps = record.recovery["curve"]
            points = [steps[int(i * (len(steps) - 1) / 4)] for i in range(5)] if steps else []
            curve = ", ".join(f"{loss:.3g} at {step}" for step, loss in points)
            yield f"- loss of {title} at {100 * share:.0f} %: {curve}"
    yield ""


def main() -> int:
    """Write the tables, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="its cache holds the trained networks")
    parser.add_argument("--write", action="store_true", help=f"between the marks of {DOCUMENT}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for name in LEFT for line in tables_of(name, options.results)]
    if not options.write:
        print("\n".join(lines))
        return 0
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text("\n".join([before + BEGIN, "", *lines, END + after]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
