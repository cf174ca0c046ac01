"""Calibration sources: where a method's unlabelled images come from. One file each."""

from core.calibration.base import CALIBRATIONS, CalibrationSource, Scale, Wanted, find_source, register
from core.calibration.images import calibration_images, collect

__all__ = [
    "CALIBRATIONS",
    "CalibrationSource",
    "Scale",
    "Wanted",
    "calibration_images",
    "collect",
    "find_source",
    "register",
]
