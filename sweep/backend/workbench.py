"""From a search space's baseline to the workbench that trials run on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from core.baselines import Baseline, BaselineConfig, prepare_baseline
from core.race import hardest_first
from core.trial import Workbench
from sweep.backend.shared import SharedBench, share
from sweep.reporting.progress import Reporter
from sweep.storage.reader import unwritable
from sweep.tracking.view import DatasetCard

CACHE = ".baselines"
POOL = 10_000


def load_baseline(config: BaselineConfig, results: Path, reporter: Reporter) -> Baseline:
    """Train, load or fetch from the cache the original network; sweeps with the same ``results`` share the cache."""
    try:
        return prepare_baseline(config, results / CACHE, progress=reporter.step)
    except OSError as error:
        raise unwritable(results / CACHE, error) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as workers do, so that times can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_bench(baseline: Baseline, hardest: bool = False) -> Workbench:
    """The workbench on the test split, with a fixed random part of the training images to draw calibrations from.

    ``hardest`` puts the test images that the original network is least sure of first, for racing.
    """
    images, labels = baseline.dataset.inputs("test")
    train = baseline.dataset.train.images
    pool = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:POOL].sort().values
    bench = Workbench(
        model=baseline.model.eval(),
        images=images,
        labels=labels,
        train_images=baseline.dataset.normalise(train[pool]),
        baseline_key=baseline.key,
    )
    return hardest_first(bench) if hardest else bench


def measured(bench: Workbench) -> tuple[SharedBench, float]:
    """Take the bench apart for sharing; with the seconds that evaluating the original network takes one thread."""
    started = time.perf_counter()
    with one_thread():
        return share(bench), time.perf_counter() - started


def dataset_card(baseline: Baseline) -> DatasetCard:
    """What trials are evaluated on, for MLflow."""
    dataset = baseline.dataset
    return DatasetCard(dataset.name, dataset.fingerprint, len(dataset.test), dataset.shape)
