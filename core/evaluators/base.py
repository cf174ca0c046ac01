"""What an evaluator says, and the registry of them.

An evaluator says what a network's answers are held against; a trial's ``accuracy`` is the share of images where they
agree, in percent, and its ``loss`` how far the answers are apart, in nats. A new one is a file:

    @register("agreement", label="top-1 agreement with the original", word="agreement", loss="divergence")
    def agreement(logits: Tensor, labels: Tensor) -> Targets:
        return Targets(logits.argmax(1), logits.log_softmax(1))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.metrics import Metric
from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

CLASSIFICATION = "classification"
"""The usual one."""
AGREEMENT = "agreement"
"""The one that needs no labels."""


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
    """A registered evaluator.

    Attributes:
        against: what answers are held against; None: the data's labels, and the original network is not asked.
        label: of ``accuracy``, as on an axis.
        word: of it, as in a table's head.
        loss: what ``loss`` is.
        needs_labels: whether the data's labels are read.
    """

    against: Against | None
    label: str
    word: str
    loss: str
    needs_labels: bool

    def named(self, metric: Metric) -> Metric:
        """A metric by the name that it has here, as on an axis."""
        own = {"accuracy": self.label, "loss": self.loss}
        return replace(metric, label=own.get(metric.name, metric.label))


EVALUATORS: Registry[Evaluator] = Registry("evaluator", "core.evaluators")


def register(
    name: str, *, label: str, word: str, loss: str, needs_labels: bool = False
) -> Callable[[Against], Against]:
    """File what answers are held against as the evaluator ``name``."""

    def file(against: Against) -> Against:
        EVALUATORS.register(name)(Evaluator(against, label, word, loss, needs_labels))
        return against

    return file
