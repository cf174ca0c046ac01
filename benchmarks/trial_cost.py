"""What a trial costs beyond its own evaluation: every trial of lenet-fashion-mnist, and obs + least-squares on a VGG.

Run: ``python -m benchmarks.trial_cost [--trials N --seed S] [--results FOLDER]``. One process and one thread. All
distinct trials of the space in the order of its grid, as one worker would run them, or a random sample of ``--trials``
of them in the same order. The original network comes from the cache of ``--results``, as in ``sweep run``, or is
trained first. Printed per decomposition: mean and maximum of (a trial's seconds / its seconds of evaluation), which
include what is computed once for many trials; the goal is a mean of `GOAL` over all. Then seconds of the first ratio
and of each further one on the VGG-like network, with random weights (the time does not depend on them) and 256 images.
Exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from core.baselines import prepare_baseline
from core.compress import compress, prepare
from core.config import TrialConfig
from core.models import load_model
from core.records import TrialRecord
from core.trial import run_trial
from search_spaces import load_space
from sweep.backend.workbench import make_bench
from sweep.storage.layout import BASELINES

SPACE = "lenet-fashion-mnist"
GOAL = 1.5
FIRST, FURTHER = 15.0, 3.0
"""Seconds of the first ratio, and of a further one, of obs + least-squares on the VGG-like network."""
RATIOS = (0.5, 0.3, 0.7)


def chosen(configs: Sequence[TrialConfig], count: int | None, seed: int) -> list[TrialConfig]:
    """The distinct ones of ``configs``, or so many of them drawn at random, in the order given."""
    distinct = list({config.key: config for config in configs}.values())
    if count is None or count >= len(distinct):
        return distinct
    return [distinct[i] for i in sorted(random.Random(seed).sample(range(len(distinct)), count))]


def run_space(results: Path, count: int | None, seed: int) -> list[TrialRecord]:
    """Run trials of the space on one workbench.

    Raises:
        SystemExit: one fails.
    """
    space = load_space(SPACE)
    baseline = prepare_baseline(space.baseline, results / BASELINES)
    bench = make_bench(baseline, space.evaluation.split).with_original()
    records = [run_trial(config, bench) for config in chosen(list(space.grid()), count, seed)]
    for record in records:
        if record.status != "finished":
            raise SystemExit(f"trial {record.key} failed: {record.reason}; its figures would mean nothing")
    return records


def print_space(records: Sequence[TrialRecord]) -> bool:
    """Print the table; whether the mean over all trials is good enough."""
    by_kind = defaultdict[str, list[TrialRecord]](list)
    for record in records:
        name, options = record.config["decomposition"], record.config["options"]
        by_kind[f"nmf {options['rows']}" if name == "nmf" else name].append(record)
    print(f"{SPACE:28} trials  ms a trial  evaluation   trial / evaluation: mean  max")
    for kind, own in (*sorted(by_kind.items()), ("all", records)):
        ratios = [record.seconds / record.evaluate_seconds for record in own]
        whole, evaluating = (1e3 * mean(getattr(r, name) for r in own) for name in ("seconds", "evaluate_seconds"))
        print(f"  {kind:26} {len(own):6} {whole:11.1f} {evaluating:11.1f} {mean(ratios):25.2f} {max(ratios):5.1f}")
    return mean(record.seconds / record.evaluate_seconds for record in records) <= GOAL


def print_least_squares() -> bool:
    """Print seconds of obs + least-squares on the VGG-like network; whether they are good enough."""
    model = load_model("vgg-small", num_classes=10, in_channels=1, seed=0).eval()
    images = torch.randn(256, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    prepared, times = prepare(model, images[:1]), []
    for ratio in RATIOS:
        start = time.perf_counter()
        compress(prepared, images[:1], ratio=ratio, criterion="obs", decomposition="least-squares", calibration=images)
        times.append(time.perf_counter() - start)
    first, further = times[0], mean(times[1:])
    print(f"vgg-small, obs + least-squares, 256 images: first ratio {first:.1f} s, further ones {further:.1f} s each")
    return first <= FIRST and further <= FURTHER


def main() -> None:
    """Print the figures; exit with 1 when they are not good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, help="a random sample of so many; all are run without")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--results", type=Path, help="folder whose trained networks are used")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-trial-cost-") as folder:
        records = run_space(wanted.results or Path(folder), wanted.trials, wanted.seed)
    good = [print_space(records), print_least_squares()]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
