"""Conditions on records, such as ``params <= 0.3 and criterion == obs``: parsed, and never run as code.

::

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" condition ")" | NAME OPERATOR VALUE
    OPERATOR   = "<=" | "<" | ">=" | ">" | "==" | "!="

A NAME is a metric (`core.metrics`), ``params``, ``macs``, ``bytes`` or ``latency`` for the fraction left of the
original's, ``drop`` for the accuracy lost, a field of the configuration, or an option of its decomposition. A VALUE is
a number, or a word, quoted or not; numbers may be `SLACK` off, since a difference of accuracies rarely is a round one.
A comparison with something that a record does not have, or that nothing reads there, does not hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from core.config import TrialConfig, counting
from core.decompositions import DECOMPOSITIONS
from core.errors import UsageError, nearest, shortened
from core.metrics import KNOWN_FRACTIONS, METRICS, SHORT, TEST, drop_of
from core.records import TrialRecord

TOKEN = re.compile(r"\s*(?:(<=|>=|==|!=|<|>|\(|\))|\"([^\"]*)\"|'([^']*)'|([\w.+:/-]+))")
SLACK = 1e-9
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": lambda a, b: a <= b + SLACK,
    ">=": lambda a, b: a >= b - SLACK,
    "==": lambda a, b: a == b or (not isinstance(a, str) and abs(a - b) <= SLACK),
    "!=": lambda a, b: not COMPARISONS["=="](a, b),
    "<": lambda a, b: a < b - SLACK,
    ">": lambda a, b: a > b + SLACK,
}
EQUALITIES = ("==", "!=")
WORDS = ("and", "or", "not")
DEEPEST = 50

LARGEST_FRACTION = 2.0
"""No network is larger than twice the original; who writes 30 means 30 percent."""


class Condition(Protocol):
    """Something that holds for a record or not."""

    def __call__(self, record: TrialRecord) -> bool:
        """Whether it holds."""
        ...

    def miss(self, record: TrialRecord, no: bool = False) -> float:
        """By how much the record misses it (or, with ``no``, its opposite), 0 where it does not; 1 is a whole scale."""
        ...


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        name: as it was written.
        sign: of `COMPARISONS`.
        word: what is compared with.
        number: the same as a number; None: it is none.
    """

    name: str
    sign: str
    word: str
    number: float | None

    def __call__(self, record: TrialRecord) -> bool:
        """Whether it holds; words have no order."""
        value, compare = value_of(record, self.name), COMPARISONS[self.sign]
        if isinstance(value, bool):
            return self.sign in EQUALITIES and compare(str(value).lower(), self.word.lower())
        if isinstance(value, int | float) and self.number is not None:
            return compare(float(value), self.number)
        return isinstance(value, str) and self.sign in EQUALITIES and compare(value, self.word)

    def miss(self, record: TrialRecord, no: bool = False) -> float:
        """See `Condition.miss`: of a fraction the difference, of an accuracy that of its hundredth, else relative."""
        if self(record) is not no:
            return 0.0
        value = value_of(record, self.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or self.number is None:
            return 1.0
        name = SHORT.get(self.name, self.name)
        usual = 1.0 if name.endswith("_fraction") else 100.0 if "accuracy" in name else 0.0
        return SLACK + abs(value - self.number) / (usual or max(abs(value), abs(self.number), SLACK))


@dataclass(frozen=True)
class Joined:
    """Several conditions, of which ``every`` one has to hold, or one."""

    parts: tuple[Condition, ...]
    every: bool

    def __call__(self, record: TrialRecord) -> bool:
        """Whether it holds."""
        return (all if self.every else any)(part(record) for part in self.parts)

    def miss(self, record: TrialRecord, no: bool = False) -> float:
        """See `Condition.miss`."""
        return (sum if self.every is not no else min)(part.miss(record, no) for part in self.parts)


@dataclass(frozen=True)
class Opposite:
    """What holds where ``part`` does not."""

    part: Condition

    def __call__(self, record: TrialRecord) -> bool:
        """Whether it holds."""
        return not self.part(record)

    def miss(self, record: TrialRecord, no: bool = False) -> float:
        """See `Condition.miss`."""
        return self.part.miss(record, not no)


@dataclass(frozen=True)
class Token:
    """A piece of the text; ``quoted`` words are values, whatever they say."""

    text: str
    quoted: bool = False


def parse_where(text: str) -> Condition:
    """The condition that ``text`` says.

    Raises:
        UsageError: it cannot be read, or names something that there is not; the nearest names are given.
    """
    parser = _Parser(text)
    found = parser.condition()
    if parser.left:
        raise parser.wrong(f"{parser.left[0].text!r} is not expected; join conditions with and, or")
    return found


def value_of(record: TrialRecord, name: str) -> Any:
    """What a record has under a name of the language; None: nothing, "none": that nothing is what was chosen."""
    if SHORT.get(name, name) in record.metrics:
        return record.metrics[SHORT.get(name, name)]
    if name == "drop":  # of another score than accuracy
        return next((value for metric, value in record.metrics.items() if metric.endswith(drop_of(""))), None)
    fields = {**counting(record.config), **record.options}
    return "none" if name in fields and fields[name] is None else fields.get(name)


def is_metric(name: str) -> bool:
    """Whether a name of the language is that of a number which was measured."""
    name = SHORT.get(name, name)
    return name.removeprefix(TEST) in METRICS


def known_names() -> set[str]:
    """All names that the language knows."""
    fields = {name for name in TrialConfig.model_fields if name not in ("options", "ratios", "sites")}
    options = {option for _, part in DECOMPOSITIONS.items() for option in part.model_fields}
    return {*METRICS, *SHORT, *fields, *options, *(f"{TEST}{name}" for name in METRICS)}


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._depth = text, 0
        self.left: list[Token] = []
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            if found is None:
                raise self.wrong(f"{shortened(repr(text[at:].strip()))} cannot be read")
            mark, double, single, word = found.groups()
            quoted = double if double is not None else single
            self.left.append(Token(mark or word) if quoted is None else Token(quoted, quoted=True))
            at = found.end()

    def wrong(self, what: str) -> UsageError:
        """The complaint about the text."""
        return UsageError(f"--where {shortened(repr(self._text))}: {what}")

    def condition(self) -> Condition:
        """One or several, of which one has to hold."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.wrong(f"more than {DEEPEST} conditions lie in one another")
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Joined(tuple(parts), every=False)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Joined(tuple(parts), every=True)

    def _one(self) -> Condition:
        if self._take("not"):
            self._depth += 1
            if self._depth > DEEPEST:
                raise self.wrong(f"more than {DEEPEST} conditions lie in one another")
            inner = self._one()
            self._depth -= 1
            return Opposite(inner)
        if self._take("("):
            found = self.condition()
            if not self._take(")"):
                raise self.wrong("a bracket is not closed")
            return found
        return self._comparison()

    def _comparison(self) -> Condition:
        if not self.left or self.left[0].text in (*COMPARISONS, *WORDS, ")"):
            raise self.wrong("a comparison such as params <= 0.3 is missing")
        name = self.left.pop(0).text
        if name not in known_names():
            raise self.wrong(f"unknown name {shortened(repr(name))}; {nearest(name, known_names())}")
        if not self.left or self.left[0].text not in COMPARISONS:
            raise self.wrong(f"{name} has to be compared, with <=, <, >=, >, == or !=")
        sign = self.left.pop(0).text
        if not self.left or self.left[0].text in (*COMPARISONS, "(", ")"):
            raise self.wrong(f"{name} {sign} what? give a number or a word")
        return self._compared(name, sign, self.left.pop(0))

    def _compared(self, name: str, sign: str, token: Token) -> Comparison:
        try:
            number = None if token.quoted else float(token.text)
        except ValueError:
            number = None
        if is_metric(name) and (number is None or not math.isfinite(number)):
            raise self.wrong(f"{name} is a number; compare it with one, not with {shortened(repr(token.text))}")
        if SHORT.get(name, name) in KNOWN_FRACTIONS and abs(number or 0.0) > LARGEST_FRACTION:
            raise self.wrong(f"{name} is the fraction left of the original's, such as {name} <= 0.3")
        return Comparison(name, sign, token.text, number)

    def _take(self, text: str) -> bool:
        if self.left and self.left[0] == Token(text):
            self.left.pop(0)
            return True
        return False
