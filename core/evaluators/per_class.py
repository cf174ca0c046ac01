"""``per-class``: top-1 accuracy as ``classification`` has it, with that of each class, the worst of them, and top-5."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core.evaluators.base import register_measure
from core.lazy import torch
from core.metrics import METRICS

if TYPE_CHECKING:
    from torch import nn

TOP = 5
MOST = 100
"""With more classes than this, only the worst of them is told."""


@register_measure("per-class", METRICS["accuracy"], word="accuracy", needs_labels=True)
def per_class(model: nn.Module, batches: Iterable[Any], device: str) -> dict[str, float]:
    """Measure a network that gives logits (n, classes).

    Args:
        model: in eval mode, on ``device``.
        batches: of images (n, C, H, W) and labels (n,).
        device: where to compute.

    Returns:
        ``accuracy``, ``loss`` (cross-entropy, nats), ``worst_class_accuracy``; with more than five classes
        ``top5_accuracy``, and with at most a hundred ``class_0_accuracy``, … of those that occur, all in percent.
    """
    loss, seen, right, among = 0.0, torch.zeros(0), torch.zeros(0), 0
    for images, labels in batches:
        logits, wanted = model(images.to(device)), labels.to(device)
        classes = logits.shape[1]
        if not len(seen):
            seen, right = torch.zeros(classes), torch.zeros(classes)
        loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        seen += torch.bincount(wanted, minlength=classes).cpu()
        right += torch.bincount(wanted[logits.argmax(1) == wanted], minlength=classes).cpu()
        among += int((logits.topk(min(TOP, classes), 1).indices == wanted[:, None]).sum())
    count = float(seen.sum())
    shares = {number: 100 * float(right[number] / seen[number]) for number in seen.nonzero().flatten().tolist()}
    found = {"accuracy": 100 * float(right.sum()) / count, "loss": loss / count}
    found["worst_class_accuracy"] = min(shares.values())
    if len(seen) > TOP:
        found["top5_accuracy"] = 100 * among / count
    if len(seen) <= MOST:
        found |= {f"class_{number}_accuracy": share for number, share in shares.items()}
    return found
