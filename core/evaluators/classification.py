"""``classification``: the labels of the data; top-1 accuracy and cross-entropy."""

from __future__ import annotations

from core.evaluators.base import EVALUATORS, Evaluator
from core.metrics import METRICS

LABELS = Evaluator(METRICS["accuracy"], word="accuracy", loss="cross-entropy", needs_labels=True)
EVALUATORS.register("classification")(LABELS)
