"""Criteria: which channels stay. One file each; a higher score means kept."""

from core.criteria.base import CRITERIA, Criterion, register

__all__ = ["CRITERIA", "Criterion", "register"]
