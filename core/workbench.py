"""What a worker keeps between trials, so that a trial costs little more than its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.calibration import Scale, calibration_images
from core.calibration.base import Wanted, draw
from core.compress import Prepared, prepare
from core.config import TrialConfig
from core.criteria import CRITERIA
from core.errors import UsageError
from core.evaluators import USUAL, Evaluator, Measure, measured
from core.graph.trace import duplicate
from core.measure import Evaluation, Measurement, evaluate, latency_ms, logits_of, sizes
from core.metrics import TEST, in_full
from core.pixels import Images
from core.precision import autocasting
from core.records import EvalSplit, Precision
from core.recovery import RECOVERIES
from core.shelf import Kept, Shelf
from core.tasks import ImageBatches, Inputs, Samples

LABELLED = "train-subset"
"""The calibration source whose images have labels."""
MADE = "synthetic"
"""The one whose images are made of the network, in minutes for a large one."""


@dataclass(frozen=True)
class Labelled:
    """Images to evaluate on.

    Attributes:
        images: inputs (N, C, H, W), normalised, or stored ones that become so. May be read-only memory: never written.
        labels: (N,) class indices.
        reference: (N, classes) log-probabilities that are wanted; None: the labels are all that is known.
    """

    images: Images
    labels: Tensor
    reference: Tensor | None = None

    def against(self, evaluator: Evaluator, model: nn.Module, batch_size: int, device: str) -> Labelled:
        """The same images with what ``evaluator`` holds answers against; ``model`` is the original network."""
        if evaluator.against is None:
            return self
        found = evaluator.against(logits_of(model, self.images, batch_size, device), self.labels)
        return Labelled(self.images, found.labels, found.reference)


@dataclass
class Workbench:
    """The original network, the images, and what does not depend on a configuration.

    Attributes:
        model: the original network, in eval mode; never changed.
        images: evaluation inputs (N, C, H, W), normalised, or stored ones that become so. May be read-only memory:
            never written to.
        labels: (N,) class indices.
        train_images: normalised training images (M, C, H, W), the pool that calibration draws from.
        original: metrics of the original network on this bench; `with_original` measures them.
        baseline_key: identity of the original network, kept in every record.
        device: where trials compute.
        batch_size: images per forward, and between two looks at a race.
        probe: so many of the first images are a random draw from all (see `core.race.hardest_first`); 0: none are.
        split: which part of the dataset ``images`` are.
        test: the test split, where ``images`` are another one and the dataset has both.
        scale: how images are normalised, where it is known.
        collected: calibration source -> what it has read of the files it draws from (see `core.calibration.collect`);
            one that is not here reads them itself.
        train_labels: (M,) class indices of ``train_images``, for the methods that learn from labels.
        mirror: whether a mirror image keeps its label.
        shelf: keeps what no trial changes for other processes, and for later.
        reference: (N, classes) log-probabilities that are wanted of the images (see `core.evaluators`).
        scored: what trials are scored by.
        measure_by: how a network is measured, where `scored` does not look at images one by one.
        samples: what it is measured on then.
        test_samples: likewise of the test split, where ``samples`` are of another one.
        autocast: what evaluations' forward passes compute in where that is safe; None: in what the network's do.
        inputs: an example (1, …) of what the network takes, of a task that has no images; ``images`` are empty then,
            and ``train_images`` what calibration draws from: as many inputs.
    """

    model: nn.Module
    images: Images
    labels: Tensor
    train_images: Images | tuple[Tensor, ...]
    original: Mapping[str, float] = field(default_factory=dict)
    baseline_key: str = ""
    device: str = "cpu"
    batch_size: int = 250
    probe: int = 0
    split: EvalSplit = "test"
    test: Labelled | None = None
    scale: Scale | None = None
    collected: Mapping[str, Tensor] = field(default_factory=dict)
    train_labels: Tensor | None = None
    mirror: bool = False
    shelf: Shelf = field(default_factory=Shelf)
    reference: Tensor | None = None
    scored: Evaluator = USUAL
    measure_by: Measure | None = None
    samples: Samples | None = None
    test_samples: Samples | None = None
    autocast: Precision | None = None
    inputs: Inputs | None = None
    _calibrations: dict[tuple[str, int, int], Inputs] = field(default_factory=dict, repr=False)
    _labels: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def prepared(self) -> Prepared:
        """The original's channel sets and statistics, found once."""
        found = prepare(self.model, self.example)
        found.shelf = self.shelf
        return found

    @property
    def logits(self) -> bool:
        """Whether outputs (N, k) are logits: of images with classes they are, of a task nobody has said so."""
        return self.inputs is None

    @property
    def example(self) -> Inputs:
        """One input (1, …), or one of each, where trials compute."""
        return self.some(1)

    def some(self, count: int) -> Inputs:
        """The first inputs that the network is evaluated on, at most so many; of a task its example."""
        given = self.images[:count] if self.inputs is None else self.inputs
        found: Inputs = pytree.tree_map(lambda x: x.to(self.device, copy=True), given)
        return found

    @property
    def total(self) -> int:
        """How many samples a network is evaluated on."""
        return len(self.labels) if self.samples is None else self.samples.count

    @property
    def has_test(self) -> bool:
        """Whether the front is evaluated on other samples than the search."""
        return self.test is not None or self.test_samples is not None

    @cached_property
    def score(self) -> float:
        """That of the original network."""
        name = self.scored.score.name
        return self.original[name] if name in self.original else self.evaluate(self.model).metrics[name]

    def worse(self, metrics: Mapping[str, float]) -> float:
        """How much worse than the original's a network's score is."""
        score = self.scored.score
        return score.loss(metrics[score.name]) - score.loss(self.score)

    def on(self, device: str) -> Self:
        """The same bench with a network of its own there; what is cached is found anew."""
        return replace(self, model=duplicate(self.model).to(device), device=device, _calibrations={}, _labels={})

    def measured_by(self, measure: Measure) -> Self:
        """The same for an evaluator that goes through images and labels itself, batch by batch."""
        test = self.test
        return replace(
            self,
            measure_by=measure,
            samples=Samples(ImageBatches(self.images, self.labels, self.batch_size)),
            test_samples=None if test is None else Samples(ImageBatches(test.images, test.labels, self.batch_size)),
        )

    def with_original(self) -> Self:
        """The same bench with the metrics of its original network, measured on it."""
        tested = self.tested(self.model)[0] if self.has_test else {}
        named = {f"{TEST}{name}": value for name, value in tested.items()}
        return replace(self, original={**self.measure(self.model), **named})

    def with_effect(self) -> Self:
        """The same bench with what its original network scores without autocast, too, where there is some."""
        name, full = self.scored.score.name, replace(self, autocast=None)
        found = {} if self.autocast is None else {in_full(name): full.evaluate(self.model).metrics[name]}
        return replace(self, original={**self.original, **found})

    def calibration(self, config: TrialConfig) -> Inputs | None:
        """The configuration's calibration images (n, C, H, W), or None where it needs none; cached.

        Raises:
            UsageError: this task has none, or none of this source.
        """
        if config.calibration is None:
            return None
        key = (config.calibration, config.calibration_images, config.seed)
        if key not in self._calibrations and self.inputs is not None:
            self._calibrations[key] = self._drawn(config)
        elif key not in self._calibrations:
            assert not isinstance(self.train_images, tuple)
            draw = partial(
                calibration_images,
                config.calibration,
                count=config.calibration_images,
                seed=config.seed,
                model=self.model,
                images=self.train_images,
                scale=self.scale,
                collected=self.collected.get(config.calibration),
            )
            if config.calibration == MADE:
                what = ("images", *key, self.train_images.shape, self.scale)
                drawn = self.prepared.once(lambda: Kept({"images": draw()}), *what).tensors["images"]
            else:
                drawn = draw()
            self._calibrations[key] = drawn.to(self.device)
        return self._calibrations[key]

    def _drawn(self, config: TrialConfig) -> Inputs:
        """Rows of a task's own calibration inputs, the same of each.

        Raises:
            UsageError: it has none, or another source is asked for.
        """
        if config.calibration != LABELLED:
            raise UsageError(
                f"calibration {config.calibration!r} makes or reads images, and this is a task of its own inputs: take"
                f" {LABELLED!r}, which draws from those that it brings"
            )
        pool = self.train_images if isinstance(self.train_images, tuple) else (self.train_images[:],)
        if not pool or not len(pool[0]):
            raise UsageError("this task brings no calibration inputs: give it some (Task(calibration=…))")
        generator = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(pool[0]), generator=generator)[: config.calibration_images]
        drawn = tuple(x[chosen].to(self.device) for x in pool)
        return drawn if isinstance(self.inputs, tuple) else drawn[0]

    def calibration_labels(self, config: TrialConfig) -> Tensor | None:
        """Classes (n,) of the configuration's calibration images, or None where nothing of it learns from labels.

        Raises:
            UsageError: something does, and the images have none.
        """
        learning = [
            name
            for part, name in ((CRITERIA, config.criterion), (RECOVERIES, config.recovery))
            if part.get(name).needs_labels
        ]
        if not learning:
            return None
        if config.calibration != LABELLED or self.train_labels is None:
            raise UsageError(
                f"{learning[0]} learns from labels, and calibration {config.calibration!r} has none: take {LABELLED!r}"
            )
        key = (config.calibration_images, config.seed)
        if key not in self._labels:
            assert not isinstance(self.train_images, tuple)
            _, *shape = self.train_images.shape
            generator = torch.Generator().manual_seed(config.seed)
            drawn = draw(LABELLED, Wanted((shape[0], shape[1], shape[2]), key[0], generator, pool=self.train_labels))
            self._labels[key] = drawn.to(self.device)
        return self._labels[key]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and sizes of ``model`` on this bench (see `core.metrics` for names and units)."""
        return self.complete(model, self.evaluate(model), self.sizes(model))

    def sizes(self, model: nn.Module) -> dict[str, float]:
        """The metrics of ``model`` that are known without an evaluation."""
        return sizes(model, self.example)

    def evaluate(self, model: nn.Module, enough: Callable[[int, int], bool] | None = None) -> Evaluation | Measurement:
        """Evaluate ``model``, image by image until ``enough`` says so (see `core.measure.evaluate`), or as a whole.

        Raises:
            UsageError: an evaluator that measures gave no numbers, or others than of the original network.
        """
        if self.samples is not None:
            return self._measured(model, self.samples)
        with autocasting(model, self.autocast, self.device):
            return evaluate(model, self.images, self.labels, self.batch_size, self.device, enough, self.reference)

    def _measured(self, model: nn.Module, samples: Samples) -> Measurement:
        assert self.measure_by is not None, "samples come with what measures on them"
        with torch.inference_mode(), autocasting(model, self.autocast, self.device):
            found = measured(self.scored.score, self.measure_by(model, samples, self.device))
        if self.scored.score.name in self.original and (odd := [name for name in found if name not in self.original]):
            raise UsageError(f"the evaluator gave {odd[0]!r}, which it did not give of the original network")
        return Measurement(found, samples.count)

    def complete(
        self, model: nn.Module, evaluation: Evaluation | Measurement, size: dict[str, float]
    ) -> dict[str, float]:
        """The metrics of a network that was evaluated on all images."""
        return {**evaluation.metrics, **size, "latency_ms": latency_ms(model, self.example)}

    def tested(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """What ``model`` reaches on the test split, by name, and how many samples that has."""
        if self.test_samples is not None:
            measurement = self._measured(model, self.test_samples)
            return measurement.metrics, measurement.images
        test = self.test
        assert test is not None, "this bench has another split than the test split, and that one too"
        with autocasting(model, self.autocast, self.device):
            found = evaluate(model, test.images, test.labels, self.batch_size, self.device, reference=test.reference)
        return found.metrics, found.images
