"""Calibration sources: where a method's unlabelled images come from. One file each."""

from core.calibration.base import CALIBRATIONS, CalibrationSource, register

__all__ = ["CALIBRATIONS", "CalibrationSource", "register"]
