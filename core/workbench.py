"""What a worker keeps between trials, so that a trial costs little more than its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor, nn

from core.calibration import Scale, calibration_images
from core.calibration.base import Wanted, draw
from core.compress import Prepared, prepare
from core.config import TrialConfig
from core.criteria import CRITERIA
from core.errors import UsageError
from core.evaluators import Evaluator
from core.measure import Evaluation, evaluate, latency_ms, logits_of, sizes
from core.metrics import TEST
from core.pixels import Images
from core.records import EvalSplit
from core.recovery import RECOVERIES
from core.shelf import Kept, Shelf

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
    """

    model: nn.Module
    images: Images
    labels: Tensor
    train_images: Images
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
    _calibrations: dict[tuple[str, int, int], Tensor] = field(default_factory=dict, repr=False)
    _labels: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def prepared(self) -> Prepared:
        """The original's channel sets and statistics, found once."""
        found = prepare(self.model, self.example)
        found.shelf = self.shelf
        return found

    @property
    def example(self) -> Tensor:
        """One image (1, C, H, W), where trials compute."""
        return self.images[:1].to(self.device)

    @cached_property
    def accuracy(self) -> float:
        """That of the original network, percent."""
        return self.original["accuracy"] if "accuracy" in self.original else self.evaluate(self.model).accuracy

    def with_original(self) -> Self:
        """The same bench with the metrics of its original network, measured on it."""
        tested = {} if self.test is None else self.tested(self.model)[0]
        named = {f"{TEST}{name}": value for name, value in tested.items()}
        return replace(self, original={**self.measure(self.model), **named})

    def calibration(self, config: TrialConfig) -> Tensor | None:
        """The configuration's calibration images (n, C, H, W), or None where it needs none; cached."""
        if config.calibration is None:
            return None
        key = (config.calibration, config.calibration_images, config.seed)
        if key not in self._calibrations:
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

    def evaluate(self, model: nn.Module, enough: Callable[[int, int], bool] | None = None) -> Evaluation:
        """Evaluate ``model``, until ``enough`` says so (see `core.measure.evaluate`)."""
        return evaluate(model, self.images, self.labels, self.batch_size, self.device, enough, self.reference)

    def complete(self, model: nn.Module, evaluation: Evaluation, size: dict[str, float]) -> dict[str, float]:
        """The metrics of a network that was evaluated on all images."""
        latency = latency_ms(model, self.example)
        return {"accuracy": evaluation.accuracy, "loss": evaluation.mean_loss, **size, "latency_ms": latency}

    def tested(self, model: nn.Module) -> tuple[dict[str, float], int]:
        """``accuracy`` (percent) and ``loss`` (nats) of ``model`` on the test split, and how many images that has."""
        assert self.test is not None, "this bench has another split than the test split, and that one too"
        test = self.test
        found = evaluate(model, test.images, test.labels, self.batch_size, self.device, reference=test.reference)
        return {"accuracy": found.accuracy, "loss": found.mean_loss}, found.images
