"""Evaluators: what trials are scored by; one file each."""

from core.evaluators.base import CLASSIFICATION, EVALUATORS, Evaluator, Measure, Targets, register, register_measure
from core.evaluators.find import find_evaluator, function_of, measured

USUAL = EVALUATORS.get(CLASSIFICATION)
"""What networks are scored by where nobody says."""

__all__ = [
    "EVALUATORS",
    "USUAL",
    "Evaluator",
    "Measure",
    "Targets",
    "find_evaluator",
    "function_of",
    "measured",
    "register",
    "register_measure",
]
