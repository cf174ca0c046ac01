"""From a search space's baseline to the workbench that trials run on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from core.baselines import EVALUATION_BATCH, Baseline, prepare_baseline
from core.calibration import Scale, collect
from core.config import BaselineConfig
from core.datasets import ImageDataset
from core.errors import DataError, UsageError
from core.evaluators import EVALUATORS, USUAL, Evaluator, function_of
from core.evaluators.base import OF_TASK
from core.graph.trace import as_inputs, duplicate
from core.race import hardest_first
from core.records import EvalSplit, Precision
from core.tasks import Samples, Task
from core.trial import reason_of, require_finite
from core.workbench import Labelled, Workbench
from sweep.errors import StoreError
from sweep.reporting.progress import Pace, Reporter
from sweep.storage.info import ClusterRequest
from sweep.storage.layout import BASELINES
from sweep.storage.reader import unwritable
from sweep.tracking.view import DatasetCard

NOTE_SECONDS = 2.0
POOL = 10_000
"""Training images at most that calibration draws from."""


def load_baseline(
    config: BaselineConfig,
    results: Path,
    reporter: Reporter,
    *,
    may_train: bool = True,
    note: Callable[[str], None] = lambda text: None,
    sites: Collection[tuple[str, ...]] = (),
    device: str = "cpu",
) -> Baseline:
    """Train, load or fetch from the cache the original network; sweeps with the same ``results`` share the cache.

    Args:
        config: what is wanted.
        results: folder of all sweeps.
        reporter: shows how far it is, and says beforehand what is trained and how to go without.
        may_train: False refuses to train it.
        note: hears every few seconds how far a training is.
        sites: patterns that will choose channel sets, looked at beforehand.
        device: where it is trained and evaluated; it is returned there.

    Raises:
        StoreError: the cache cannot be written.
        NeuronMergingError: see `core.baselines.prepare_baseline`.
    """
    try:
        tell, folder = Training(config, reporter, note).step, results / BASELINES
        return prepare_baseline(config, folder, tell, device=device, may_train=may_train, sites=sites)
    except OSError as error:
        raise StoreError(unwritable(results / BASELINES, error)) from error


class Training:
    """What a person hears while the original network is made: that it is trained, how long that takes, how far it is.

    Args:
        config: of the network.
        reporter: shows it.
        note: hears every few seconds how far it is.
    """

    def __init__(self, config: BaselineConfig, reporter: Reporter, note: Callable[[str], None]) -> None:
        self._config, self._reporter, self._note = config, reporter, note
        self._pace, self._said, self._noted_at = Pace(), 0, -math.inf

    def step(self, done: int, total: int, text: str) -> None:
        """One report of `core.baselines.prepare_baseline`; those of one step are of the data."""
        if total > 1:
            self._announce(self._pace.left(done, total))
            if time.monotonic() - self._noted_at >= NOTE_SECONDS:
                self._note(text)
                self._noted_at = time.monotonic()
        self._reporter.step(done, total, text)

    def _announce(self, left: str) -> None:
        config, tell = self._config, self._reporter.line
        if self._said == 0:
            tell(
                f"{config.model} is trained on {config.dataset} first: {config.epochs} epochs, once for all sweeps here"
                " (--set baseline.checkpoint=FILE takes weights of yours instead)"
            )
            self._said = 1
        if self._said == 1 and left:
            tell(
                f"about {left.strip(', ')}; whatever breaks it off, the same command goes on after the last epoch kept"
            )
            self._said = 2


def remarks(baseline: Baseline, split: EvalSplit = "test") -> list[str]:
    """What a reader of the figures must know of the original network and its data."""
    dataset = baseline.dataset
    notes = [f"warning: {doubt}" for doubt in baseline.doubts]
    notes += [dataset.note] if dataset.note else []
    if split == "validation" and not dataset.has_own_test:
        what = "score" if isinstance(dataset, Task) else "accuracy"
        notes.append(f"{dataset.name} has no test split of its own: the front gets no test {what}")
    return notes


def device_beside(cluster: ClusterRequest) -> str:
    """Where the process that starts a sweep computes: as its workers do, on a GPU, if it has one itself."""
    return "cuda" if cluster.gpus_per_trial > 0 and torch.cuda.is_available() else "cpu"


def idle_gpu(cluster: ClusterRequest) -> list[str]:
    """What a person should know on whose machine a GPU has nothing to do."""
    if cluster.address is not None or cluster.gpus_per_trial > 0 or not torch.cuda.is_available():
        return []
    return ["this machine has a GPU, which is not used: '--gpus-per-trial 0.25' has four trials share it"]


def leave_to_workers(device: str) -> None:
    """Give back what of a GPU's memory this process keeps for itself and does not use."""
    if device == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as workers do, so that times can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_bench(
    baseline: Baseline,
    split: EvalSplit = "test",
    *,
    hardest: bool = False,
    sources: Collection[str] = (),
    scored: Evaluator = USUAL,
    autocast: Precision | None = None,
    device: str = "cpu",
) -> Workbench:
    """The workbench on a split, with a fixed random part of the training images to draw calibrations from.

    Args:
        baseline: the original network and its data.
        split: what trials are evaluated on; with another one than the test split comes that one too, where the
            dataset has one of its own.
        hardest: put the images that the original network is least sure of first, for racing.
        sources: calibration sources that workers will draw from; what they look at on this machine is read now.
        scored: what trials are scored by.
        autocast: what evaluations' forward passes compute in; what answers are held against is not of them.
        device: where it computes; with a copy of the network, if that is elsewhere.

    Raises:
        DataError: the dataset has no image in that split, or no labels where they are needed.
        UsageError: a task has no function that measures, or is to be scored image by image; or the user's function
            cannot be had.
    """
    if any(weight.device.type != device for weight in baseline.model.parameters()):
        baseline = replace(baseline, model=duplicate(baseline.model).to(device))
    if isinstance(baseline.dataset, Task):
        return replace(_task_bench(baseline, baseline.dataset, split, scored), autocast=autocast, device=device)
    dataset = baseline.dataset
    images, labels = dataset.inputs(split)
    if not len(labels):
        raise DataError(f"dataset {dataset.name!r} has no {split} images: evaluate on the other split")
    if scored.needs_labels and not dataset.labelled:
        raise DataError(
            f"dataset {dataset.name!r} has no labels: take an evaluator that needs none,"
            ' evaluation.evaluator = "agreement", or sort its images into folders of their classes'
        )
    measure = None if scored.by_image else function_of(scored)
    own = Labelled(images, labels).against(scored, baseline.model, EVALUATION_BATCH, device)
    test = Labelled(*dataset.inputs("test")) if split != "test" and dataset.has_own_test else None
    pool = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))[:POOL].sort().values
    bench = Workbench(
        model=baseline.model.eval(),
        images=own.images,
        labels=own.labels,
        train_images=dataset.pool(pool),
        baseline_key=baseline.key,
        split=split,
        test=None if test is None else test.against(scored, baseline.model, EVALUATION_BATCH, device),
        scale=Scale(dataset.mean, dataset.std),
        collected={name: found for name in sources if (found := collect(name, dataset.shape)) is not None},
        train_labels=dataset.train.labels[pool] if dataset.labelled else None,
        mirror=dataset.mirror,
        reference=own.reference,
        scored=scored,
        autocast=autocast,
        device=device,
    )
    if measure is not None:
        return bench.measured_by(measure)
    return hardest_first(bench) if hardest else bench


def _task_bench(baseline: Baseline, task: Task, split: EvalSplit, scored: Evaluator) -> Workbench:
    """The workbench of a task of the user's.

    Raises:
        UsageError: nothing measures it, or something that needs images.
    """
    if scored.by_image:
        raise UsageError(
            f"{task.name!r} is a Task, which is not scored image by image: set evaluation.evaluator to"
            f' "{OF_TASK}" (its own evaluate), "segmentation", or a function of yours, module:evaluate'
        )
    own = not scored.own and scored.measure is EVALUATORS.get(OF_TASK).measure
    if own and task.evaluate is None:
        raise UsageError(f"{task.name!r} has no evaluate: give it one, or name another evaluator")
    pool = () if task.calibration is None else as_inputs(task.calibration)
    return Workbench(
        model=baseline.model.eval(),
        images=torch.empty(0),
        labels=torch.empty(0, dtype=torch.long),
        train_images=tuple(pool),
        baseline_key=baseline.key,
        split=split,
        scored=scored,
        measure_by=task.evaluate if own else function_of(scored),
        samples=Samples(task.part(split)),
        test_samples=Samples(task.test) if split != "test" and task.test is not None else None,
        inputs=task.example_inputs,
    )


def measured(bench: Workbench) -> tuple[Workbench, float]:
    """The bench with its original network measured on one thread; and the seconds that one evaluation takes.

    Raises:
        UsageError: the evaluator fails on the original network, or gives no finite number.
    """
    with one_thread():
        started = time.perf_counter()
        try:
            bench = bench.with_original()
            require_finite(bench.original)
        except Exception as error:
            if bench.samples is None:
                raise
            raise UsageError(f"the evaluator fails on the original network: {reason_of(error)}") from error
        seconds = time.perf_counter() - started
    tested = 0 if bench.test is None else len(bench.test.labels)
    if bench.test_samples is not None:
        tested = bench.test_samples.count
    with one_thread():
        bench = bench.with_effect()
    return bench, seconds * bench.total / (bench.total + tested)


def dataset_card(baseline: Baseline, split: EvalSplit) -> DatasetCard:
    """What trials are evaluated on, for MLflow."""
    dataset = baseline.dataset
    count = len(dataset.part(split)) if isinstance(dataset, ImageDataset) else Samples(dataset.part(split)).count
    return DatasetCard(dataset.name, dataset.digest(split), count, dataset.shape, split)
