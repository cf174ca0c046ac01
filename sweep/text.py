"""Words for people: durations, and texts that are too long."""

from __future__ import annotations

import os
import shutil
from typing import IO

LOG_LIMIT = 8_000
"""Characters that are kept of what a trial prints."""


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def abridged(text: str, limit: int = LOG_LIMIT) -> str:
    """``text``, or its beginning and end where it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[-limit // 2 :]}"


def cut(text: str, most: int) -> str:
    """``text``, or its beginning with … where it has more than ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def columns(stream: IO[str]) -> int | None:
    """How many characters a line of a terminal has; None where ``stream`` is none, and lines are as long as they are.

    ``COLUMNS`` in the environment counts, as for other programs.
    """
    return shutil.get_terminal_size().columns if stream.isatty() or "COLUMNS" in os.environ else None
