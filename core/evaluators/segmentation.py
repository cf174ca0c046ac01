"""``segmentation``: a class for every pixel; mean intersection over union, pixel accuracy, cross-entropy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.evaluators.base import register_measure
from core.lazy import torch
from core.metrics import Metric

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = 255
"""Pixels of this class are not looked at, as is the custom (Pascal VOC)."""
MIOU = Metric("miou", "mean IoU", "%", better="max", worst=0.0, form="{:.2f}")


@register_measure("segmentation", MIOU, word="mIoU")
def segmentation(model: nn.Module, batches: Iterable[Any], device: str) -> dict[str, float]:
    """Measure a network that gives logits (n, classes, h, w), as such or as ``out`` or ``logits`` of a dict or object.

    The mean is over the classes that are in the masks or in the answers, in percent; logits of another size than the
    masks are scaled to it.

    Args:
        model: in eval mode, on ``device``.
        batches: of images (n, C, H, W) and masks (n, H, W) of classes; 255 is not looked at.
        device: where to compute.

    Raises:
        UsageError: batches or outputs are something else.
    """
    table: Tensor | None = None
    loss = 0.0
    for images, masks in map(_pair, batches):
        logits, wanted = _logits(model(images.to(device))), masks.to(device).long()
        if logits.shape[-2:] != wanted.shape[-2:]:
            logits = torch.nn.functional.interpolate(logits, wanted.shape[-2:], mode="bilinear", align_corners=False)
        classes, known = logits.shape[1], wanted != IGNORED
        if known.any() and not 0 <= int(wanted[known].min()) <= int(wanted[known].max()) < classes:
            raise UsageError(f"masks have classes up to {int(wanted[known].max())}, and the network {classes} of them")
        loss += float(torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum"))
        pairs = wanted[known] * classes + logits.argmax(1)[known]
        counted = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        table = counted if table is None else table + counted
    if table is None or not int(table.sum()):
        raise UsageError("there is no pixel to look at: give batches of images and masks")
    return {**scores_of(table), "loss": loss / int(table.sum())}


def scores_of(table: Tensor) -> dict[str, float]:
    """``miou`` and ``pixel_accuracy``, percent, of how often (true class, answered class) came together (K, K)."""
    table = table.double()
    hits = table.diagonal()
    union = table.sum(0) + table.sum(1) - hits
    there = union > 0
    return {
        "miou": 100 * float((hits[there] / union[there]).mean()),
        "pixel_accuracy": 100 * float(hits.sum() / table.sum()),
    }


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and masks.

    Raises:
        UsageError: the batch is something else.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        images, masks = batch
        if isinstance(images, torch.Tensor) and isinstance(masks, torch.Tensor) and masks.dim() == 3:
            return images, masks
    raise UsageError("segmentation takes batches (images (n, C, H, W), masks (n, H, W)), and these are something else")


def _logits(output: Any) -> Tensor:
    """The logits of torchvision's networks (a dict), transformers' (an object), or as they are.

    Raises:
        UsageError: the output has none.
    """
    if isinstance(output, Mapping):
        output = output.get("out", output.get("logits"))
    output = getattr(output, "logits", output)
    if not isinstance(output, torch.Tensor) or output.dim() != 4:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UsageError(f"segmentation takes logits (n, classes, h, w), and the network gives {found}")
    return output
