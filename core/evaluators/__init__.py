"""Evaluators: what trials are scored by; one file each."""

from core.evaluators.base import EVALUATORS, Evaluator, Targets, register

__all__ = ["EVALUATORS", "Evaluator", "Targets", "register"]
