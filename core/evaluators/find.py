"""Which evaluator is meant, and what it measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.errors import UsageError, first_line
from core.evaluators.base import CLASSIFICATION, EVALUATORS, OF_TASK, Evaluator, Measure
from core.metrics import METRICS, OURS, Direction, Metric, declare
from core.parts import is_own_code
from core.plugins import import_callable

SCORE = "score"
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SHARED = ("accuracy", "loss")
"""Names of ours that a user's evaluator may give, too, with our meaning: percent, and what is best small."""


def find_evaluator(
    name: str = CLASSIFICATION, metric: str | None = None, direction: Direction | None = None, unit: str | None = None
) -> Evaluator:
    """The evaluator that a space's ``[evaluation]`` asks for; no code of the user's runs.

    Args:
        name: a registered one, or ``module:function`` of the user's.
        metric: what one's own measures.
        direction: which way that is better.
        unit: of it.

    Raises:
        UnknownNameError: there is no such evaluator.
        UsageError: the metric cannot have this name, or is described for an evaluator that has its own.
    """
    own = is_own_code(name)
    if not own:
        EVALUATORS.require(name)
    if not own and name != OF_TASK:
        for what, given in (("metric", metric), ("direction", direction), ("unit", unit)):
            if given is not None:
                raise UsageError(f"{what} = {given!r}: evaluator {name!r} has its own; leave it out")
        return EVALUATORS.get(name)
    score = _declared(metric or SCORE, direction, unit)
    found = EVALUATORS.get(OF_TASK)
    found = replace(found, score=score, word=score.name.replace("_", " "))
    return replace(found, measure=None, own=name) if own else found


def _declared(name: str, direction: Direction | None, unit: str | None) -> Metric:
    if NAME.fullmatch(name) is None or (name in OURS and name not in SHARED) or name.startswith("test_"):
        raise UsageError(
            f"metric = {name!r}: name what the evaluator gives in small letters, digits and '_', and not as ours:"
            f" {', '.join(sorted(OURS - set(SHARED)))}"
        )
    if name in SHARED:
        ours = METRICS[name]
        if direction not in (None, ours.better) or unit not in (None, ours.unit):
            raise UsageError(
                f"metric = {name!r} is {ours.better}, in {ours.unit}; give what is something else a name of its own"
            )
        return declare(ours)
    worst = 0.0 if direction != "min" and unit == "%" else None
    form = "{:.2f}" if unit == "%" else "{:.4g}"
    return declare(Metric(name, name.replace("_", " "), unit or "", better=direction or "max", worst=worst, form=form))


def function_of(evaluator: Evaluator) -> Measure:
    """How a network is measured; a function of the user's is imported here.

    Raises:
        UsageError, UnknownNameError, ModelError: there is no such function, or its module fails.
    """
    if evaluator.own:
        found: Measure = import_callable(evaluator.own, "evaluator")
        return found
    assert evaluator.measure is not None, "it holds answers against what they should be"
    return evaluator.measure


def measured(score: Metric, found: Any) -> dict[str, float]:
    """What a function that measures gave, as numbers by name, the score first.

    Raises:
        UsageError: it is no number and no table of numbers, or its first one is not the score.
    """
    if not isinstance(found, Mapping):
        return {score.name: _number(score.name, found)}
    if not found:
        raise UsageError("the evaluator gave an empty table: return a number, or a dict of numbers, the score first")
    for name in found:
        if not isinstance(name, str) or NAME.fullmatch(name) is None or (name in OURS and name not in SHARED):
            raise UsageError(
                f"the evaluator gave {name!r}: name numbers in small letters, digits and '_', and not as ours"
            )
    first = next(iter(found))
    if first != score.name:
        raise UsageError(
            f'the evaluator gave {first!r} first, and the score is {score.name!r}: set evaluation.metric = "{first}"'
        )
    return {name: _number(name, value) for name, value in found.items()}


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError(f"a {type(value).__name__}")
        return float(value)
    except Exception as error:  # of whatever the user's function gives
        what = first_line(error) if value is not None else "it returned nothing"
        raise UsageError(
            f"the evaluator gave no number for {name!r} ({what}): return a float, or a dict of them"
        ) from None
