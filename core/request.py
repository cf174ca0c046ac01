"""What `core.compress.compress` refuses before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core.decompositions import Decomposition
from core.errors import UsageError
from core.graph.trace import as_inputs


def check_request(ratio: float, ratios: Mapping[str, float], looking: str, calibration: Any, count: int = 1) -> None:
    """Refuse what cannot be done.

    Args:
        ratio: share of channels removed per set.
        ratios: of single sets.
        looking: what looks at activations, so that images are needed; empty: nothing does.
        calibration: images, or None.
        count: number of the network's inputs.

    Raises:
        UsageError: a ratio outside 0 ≤ r < 1, a method without the images it needs, or images that are none.
    """
    for name, value in {"ratio": ratio, **ratios}.items():
        if not 0.0 <= value < 1.0:
            raise UsageError(f"{name} = {value}: must be at least 0 and less than 1 (the share of channels removed)")
    if calibration is None and looking:
        raise UsageError(
            f"{looking} looks at activations: pass calibration=images (N, …), unlabelled, "
            "for example 256 of the training set"
        )
    if calibration is not None:
        _check_calibration(calibration, count)


def check_widths(of: str, sharpness: float | str, min_channels: int, multiple: int) -> None:
    """Refuse options of the widths that mean nothing.

    Raises:
        UsageError: an unknown size, a sharpness outside [0, 1], or less than one channel.
    """
    if of not in ("params", "macs", "bytes"):
        raise UsageError(f"of = {of!r}: must be 'params', 'macs' or 'bytes' (the size that the budget is of)")
    if sharpness != "auto" and not (isinstance(sharpness, (int, float)) and 0 <= sharpness <= 1):
        raise UsageError(f"sharpness = {sharpness!r}: must be 'auto' or from 0 (all sets alike) to 1")
    for name, value in {"min_channels": min_channels, "multiple": multiple}.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} = {value!r}: must be a whole number of at least 1")


def check_labels(learning: str, calibration: Any, labels: Tensor | None) -> None:
    """Refuse labels that do not belong to the images.

    Args:
        learning: what learns from labels; empty: nothing does.
        calibration: images (N, …), or None.
        labels: classes (N,), or None.

    Raises:
        UsageError: labels are needed and missing, or there are not as many as images.
    """
    if not learning:
        return
    if labels is None:
        raise UsageError(
            f"{learning} learns from labels: pass labels=classes (N,) of the calibration images, or take a criterion"
            " that needs none, such as obs"
        )
    count = len(as_inputs(calibration)[0])
    if labels.shape != (count,) or labels.is_floating_point():
        raise UsageError(f"labels must be {count} whole numbers, one per calibration image, not {tuple(labels.shape)}")


def check_copies(copies: int | str, method: Decomposition, labels: Tensor | None) -> None:
    """Refuse mixtures of calibration images where they mean nothing.

    Raises:
        UsageError: not a number of copies, or something that mixtures have not: labels, or the images' statistics.
    """
    if copies != "auto" and (not isinstance(copies, int) or copies < 1):
        raise UsageError(f"copies = {copies!r}: must be 'auto' or a whole number of at least 1")
    if copies not in ("auto", 1) and not mixable(method, labels):
        what = "bn_recalibrate wants the statistics of images" if method.bn_recalibrate else "labels belong to images"
        raise UsageError(f"copies = {copies}: {what}, and mixtures of them have others; take copies = 1")


def mixable(method: Decomposition, labels: Tensor | None) -> bool:
    """Whether mixtures may stand beside the calibration images."""
    return labels is None and not method.bn_recalibrate


def _check_calibration(calibration: Any, count: int) -> None:
    """Look at the calibration inputs.

    Raises:
        UsageError: they are not a tensor of finite numbers for each of the network's ``count`` inputs.
    """
    inputs = as_inputs(calibration)
    if len(inputs) != count or not all(isinstance(x, Tensor) and x.dim() for x in inputs):
        wanted = "a tensor (N, …)" if count == 1 else f"a tuple of {count} tensors (N, …), as the network takes them"
        raise UsageError(f"calibration must be {wanted}; torch.stack makes one of a list of images")
    if len({len(x) for x in inputs}) > 1:
        raise UsageError("calibration has a different number of rows for each of the network's inputs")
    if len(inputs[0]) == 0:
        raise UsageError("calibration has no images; pass at least one, better 256")
    if not all(bool(torch.isfinite(x).all()) for x in inputs):
        raise UsageError("calibration has NaN or infinite values; leave those images out")
