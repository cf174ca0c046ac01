"""The type of a calibration source and the registry of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CalibrationSource = Callable[["Tensor", int, "torch.Generator"], "Tensor"]
"""(normalised training images (N, C, H, W), how many, generator) -> model inputs (n, C, H, W), no labels."""

CALIBRATIONS: Registry[CalibrationSource] = Registry("calibration", "core.calibration")
register = CALIBRATIONS.register
