"""Why trials failed, for people: one line for each kind of failure, without tracebacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from core.errors import shortened

LONGEST = 200
"""Characters of a reason."""
VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|0x[0-9a-f]+|\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", re.IGNORECASE)
"""What differs between two failures of one kind: names in quotes, addresses, numbers."""
TRACEBACK = "Traceback (most recent call last)"
MOST = 5


def grouped(reasons: Mapping[str, int]) -> dict[str, int]:
    """Reasons by kind, each as its most frequent wording says it -> how many, the most frequent kind first.

    Two reasons are of one kind if they differ only in numbers and in what is in quotes.

    Args:
        reasons: as they stand in the records -> how many.
    """
    wordings: dict[str, Counter[str]] = {}
    for reason, count in reasons.items():
        said = sentence(reason)
        wordings.setdefault(VARYING.sub("#", said), Counter())[said] += count
    kinds = sorted(wordings.values(), key=lambda found: -found.total())
    return {_described(found): found.total() for found in kinds}


def sentence(reason: str) -> str:
    """The line of a reason that says what happened: the first, or of a traceback the last."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()] or ["no reason was given"]
    return shortened(lines[-1] if lines[0].startswith(TRACEBACK) else lines[0], LONGEST)


def _described(wordings: Counter[str]) -> str:
    [(first, _)] = wordings.most_common(1)
    others = len(wordings) - 1
    return first + (f" (and {others} alike in other words)" if others else "")


def failure_lines(reasons: Mapping[str, int], logs: str) -> Iterator[str]:
    """The most frequent kinds of failure, a line each, and the command that shows all; nothing where none failed.

    Args:
        reasons: as they stand in the records -> how many.
        logs: the command.
    """
    kinds = list(grouped(reasons).items())
    for reason, count in kinds[:MOST]:
        yield f"{count} failed: {reason}"
    rest = kinds[MOST:]
    more = f"{sum(count for _, count in rest)} failed in {len(rest)} other ways; " if rest else ""
    if kinds:
        yield f"{more}each of them:  {logs}"
