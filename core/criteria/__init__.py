"""Criteria: which channels stay. One file each; a higher score means kept."""

from core.criteria.base import CRITERIA, Criterion, ScoredSet, by_row, register, register_rows

__all__ = ["CRITERIA", "Criterion", "ScoredSet", "by_row", "register", "register_rows"]
