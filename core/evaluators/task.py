"""``task``: what a user's `core.tasks.Task` brings with it; its function is put in where the data are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.evaluators.base import EVALUATORS, Evaluator
from core.metrics import Metric

if TYPE_CHECKING:
    from torch import nn


def not_there(model: nn.Module, batches: Iterable[Any], device: str) -> float:
    """Stand where the task's own function will.

    Raises:
        UsageError: always.
    """
    del model, batches, device
    raise UsageError('evaluation.evaluator = "task" is what a Task of yours brings with it, and this dataset is none')


EVALUATORS.register("task")(Evaluator(Metric("score", "score", better="max"), "score", measure=not_there))
