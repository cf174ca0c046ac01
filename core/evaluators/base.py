"""What an evaluator says, and the registry of them.

Most tasks are classification, where an evaluator says what a network's answers are held against; a trial's ``accuracy``
is the share of images where they agree, in percent, and its ``loss`` how far the answers are apart, in nats:

    @register("agreement", label="top-1 agreement with the original", word="agreement", loss="divergence")
    def agreement(logits: Tensor, labels: Tensor) -> Targets:
        return Targets(logits.argmax(1), logits.log_softmax(1))

For any other task an evaluator measures a network itself. The first number is what trials are compared by, and the
others are recorded beside it:

    @register_measure("segmentation", Metric("miou", "mean IoU", "%", better="max", worst=0.0), word="mIoU")
    def segmentation(model: nn.Module, batches: Iterable[Any], device: str) -> dict[str, float]:
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.elsewhere import in_a_file
from core.metrics import METRICS, Metric, declare
from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSIFICATION = "classification"
"""The usual one."""
AGREEMENT = "agreement"
"""The one that needs no labels."""
OF_TASK = "task"
"""What a user's `core.tasks.Task` brings with it."""

Measure = Callable[["nn.Module", Iterable[Any], str], "float | Mapping[str, float]"]
"""(network in eval mode, batches, device) -> the score, or name -> number, the score first."""


@dataclass(frozen=True)
class Targets:
    """What answers are held against.

    Attributes:
        labels: the right classes (N,).
        reference: log-probabilities (N, classes) that answers should have; None: the labels are all that is known. The
            loss is the Kullback-Leibler divergence from them then, and the cross-entropy otherwise.
    """

    labels: Tensor
    reference: Tensor | None = None


Against = Callable[["Tensor", "Tensor"], Targets]
"""(logits (N, classes) of the original network, labels (N,) of the data) -> what others are held against."""


@dataclass(frozen=True)
class Evaluator:
    """A registered evaluator, or one of the user's.

    Attributes:
        score: what trials are compared by.
        word: of it, as in a table's head.
        loss: what ``loss`` is, where there is one.
        needs_labels: whether the labels of a dataset of images are read.
        against: what answers are held against; None: the data's labels, and the original network is not asked.
        measure: how a network is measured instead; None: image by image, against what it should answer.
        own: the user's ``module:function`` that measures, which is imported where it runs.
    """

    score: Metric
    word: str
    loss: str = ""
    needs_labels: bool = False
    against: Against | None = None
    measure: Measure | None = None
    own: str = ""

    @property
    def label(self) -> str:
        """The score in words, as on an axis."""
        return self.score.label

    @property
    def by_image(self) -> bool:
        """Whether it is known of each image whether the answer is right, as a race needs it."""
        return self.measure is None and not self.own

    def named(self, metric: Metric) -> Metric:
        """A metric by the name that it has here, as on an axis."""
        own = {self.score.name: self.label} | ({"loss": self.loss} if self.loss else {})
        return replace(metric, label=own.get(metric.name, metric.label))

    def show(self, metrics: Mapping[str, float]) -> str:
        """The score among ``metrics`` with its unit: ``93.20 %``."""
        return f"{self.score.show(metrics[self.score.name])} {self.score.unit}".rstrip()


EVALUATORS: Registry[Evaluator] = Registry("evaluator", "core.evaluators", in_a_file)


def register(
    name: str, *, label: str, word: str, loss: str, needs_labels: bool = False
) -> Callable[[Against], Against]:
    """File what answers are held against as the evaluator ``name``."""

    def file(against: Against) -> Against:
        score = replace(METRICS["accuracy"], label=label)
        EVALUATORS.register(name)(Evaluator(score, word, loss, needs_labels, against))
        return against

    return file


def register_measure(
    name: str, score: Metric, *, word: str, needs_labels: bool = False
) -> Callable[[Measure], Measure]:
    """File a function that measures a network as the evaluator ``name``."""

    def file(measure: Measure) -> Measure:
        EVALUATORS.register(name)(Evaluator(declare(score), word, needs_labels=needs_labels, measure=measure))
        return measure

    return file
