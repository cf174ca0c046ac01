"""Axes: the values one name may take, as a list (`Choices`) or a range (`Range`), and the ways to pick one."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from core.complaints import show

Value = bool | int | float | str | tuple[str, ...]
"""What a name of a configuration can be set to; a tuple is a list of glob patterns (``sites``)."""


class SuggestingTrial(Protocol):
    """The part of an Optuna trial that define-by-run spaces call."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Pick one of ``choices``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Pick a whole number between ``low`` and ``high``, both included."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Pick a number between ``low`` and ``high``, both included."""


@dataclass(frozen=True)
class Choices:
    """A list of values, without order."""

    values: tuple[Value, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    def at(self, index: int) -> Value:
        """Return the value number ``index``."""
        return self.values[index]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def sample(self, rng: random.Random) -> Value:
        """Draw one value uniformly."""
        return rng.choice(self.values)

    def suggest(self, name: str, trial: SuggestingTrial) -> Value:
        """Let ``trial`` pick; it sees labels."""
        labels = {label(v): v for v in self.values}
        return labels[trial.suggest_categorical(name, list(labels))]

    def describe(self) -> str:
        """Return the values in words."""
        return ", ".join(show(v) for v in self.values)

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that a TOML file would hold."""
        return {"values": [list(v) if isinstance(v, tuple) else v for v in self.values]}


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; all integers, or all floats.

    Attributes:
        low: the smallest.
        high: the largest, or where they end: with a step the last one may lie below it.
        step: between two numbers, of which there are finitely many then; None: 1 for integers, continuous for floats.
        log: small numbers are drawn as often as large ones, per factor.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the range is one of integers."""
        return isinstance(self.low, int)

    @property
    def count(self) -> int | None:
        """How many numbers there are; None when the range is continuous."""
        if self.low == self.high:
            return 1
        step = self._stride
        # Decimal of the shortest text: 0.9 - 0.1 holds exactly eight steps of 0.1, which binary floats miss
        return None if step is None else int((exact(self.high) - exact(self.low)) / exact(step)) + 1

    @property
    def _stride(self) -> int | float | None:
        return 1 if self.step is None and self.whole else self.step

    def at(self, index: int) -> int | float:
        """Return number ``index`` counted from ``low``, free of rounding drift (0.3, never 0.30000000000000004)."""
        number = exact(self.low) + index * exact(self._stride or 0)
        return int(number) if self.whole else float(number)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.count is None or self.at(self._index(value)) == value

    def _index(self, value: float) -> int:
        step = self._stride
        return round((value - self.low) / step) if step else 0

    def sample(self, rng: random.Random) -> int | float:
        """Draw one number, uniformly or, with ``log``, log-uniformly."""
        if self.log:
            margin = 0.5 if self.whole else 0.0
            drawn = math.exp(rng.uniform(math.log(self.low - margin), math.log(self.high + margin)))
            return min(self.high, max(self.low, round(drawn) if self.whole else drawn))
        return rng.uniform(self.low, self.high) if self.count is None else self.at(rng.randrange(self.count))

    def suggest(self, name: str, trial: SuggestingTrial) -> int | float:
        """Let ``trial`` pick a number; one with ``step`` is put exactly on its step."""
        if self.count is None:
            return trial.suggest_float(name, self.low, self.high, log=self.log)
        last = self.at(self.count - 1)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(last), step=int(self._stride or 1), log=self.log)
        return self.at(self._index(trial.suggest_float(name, self.low, last, step=self.step)))

    def describe(self) -> str:
        """Return the range in words."""
        step = f" in steps of {self._stride:g}" if self._stride and not self.log else ""
        return f"{self.low:g} to {self.high:g}{step}{' (log)' if self.log else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that a TOML file would hold."""
        given = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        return {key: value for key, value in given.items() if value is not None}


Axis = Choices | Range


def label(value: Value) -> bool | int | float | str:
    """What an optimiser calls ``value``: a list of patterns goes by its JSON text, since Optuna only stores scalars."""
    return json.dumps(value) if isinstance(value, tuple) else value


def exact(number: float) -> Decimal:
    """Return the decimal number that ``number`` is written as."""
    return Decimal(repr(number))
