"""Conditions on records, such as ``params <= 0.3 and criterion == obs``: parsed, and never run as code.

::

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" condition ")" | NAME OPERATOR VALUE
    OPERATOR   = "<=" | "<" | ">=" | ">" | "==" | "!="

A NAME is a metric (`core.metrics`), ``params``, ``macs``, ``bytes`` or ``latency`` for the fraction left of the
original's, a field of the configuration, or an option of its decomposition. A VALUE is a number, or a word, quoted or
not. A comparison with something that a record does not have does not hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.config import TrialConfig
from core.decompositions import DECOMPOSITIONS
from core.errors import UsageError, nearest, shortened
from core.metrics import METRICS, SIZES, TEST, fraction_of
from core.records import TrialRecord

SHORT = {size.removesuffix("_ms"): fraction_of(size) for size in SIZES}
TOKEN = re.compile(r"\s*(?:(<=|>=|==|!=|<|>|\(|\))|\"([^\"]*)\"|'([^']*)'|([\w.+:/-]+))")
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
WORDS = ("and", "or", "not")
DEEPEST = 50

Test = Callable[[TrialRecord], bool]


@dataclass(frozen=True)
class Token:
    """A piece of the text; ``quoted`` words are values, whatever they say."""

    text: str
    quoted: bool = False


def parse_where(text: str) -> Test:
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
    """What a record has under a name of the language; None: nothing."""
    if SHORT.get(name, name) in record.metrics:
        return record.metrics[SHORT.get(name, name)]
    if name in record.options:
        return record.options[name]
    return record.config.get(name)


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

    def condition(self) -> Test:
        """One or several, of which one has to hold."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.wrong(f"more than {DEEPEST} conditions lie in one another")
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else lambda record: any(part(record) for part in parts)

    def _all(self) -> Test:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)

    def _one(self) -> Test:
        if self._take("not"):
            self._depth += 1
            if self._depth > DEEPEST:
                raise self.wrong(f"more than {DEEPEST} conditions lie in one another")
            inner = self._one()
            self._depth -= 1
            return lambda record: not inner(record)
        if self._take("("):
            found = self.condition()
            if not self._take(")"):
                raise self.wrong("a bracket is not closed")
            return found
        return self._comparison()

    def _comparison(self) -> Test:
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
        return _compared(name, sign, self.left.pop(0))

    def _take(self, text: str) -> bool:
        if self.left and self.left[0] == Token(text):
            self.left.pop(0)
            return True
        return False


def _compared(name: str, sign: str, token: Token) -> Test:
    compare = COMPARISONS[sign]
    try:
        number = None if token.quoted else float(token.text)
    except ValueError:
        number = None

    def holds(record: TrialRecord) -> bool:
        value = value_of(record, name)
        if isinstance(value, bool):
            return compare(str(value).lower(), token.text.lower()) if sign in ("==", "!=") else False
        if isinstance(value, int | float) and number is not None:
            return compare(float(value), number)
        return isinstance(value, str) and sign in ("==", "!=") and compare(value, token.text)

    return holds
