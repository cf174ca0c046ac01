"""Command-line arguments: argparse, but every complaint is one sentence, and unknown options are answered."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from core.errors import UsageError, nearest

RESULTS = Path("results")


class HelpShown(Exception):  # noqa: N818  no error: the way out of argparse after --help
    """``--help`` was printed; nothing else is to be done."""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print its usage and exit."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise UsageError(f"{message}; see '{self.prog} --help'")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave after ``--help``."""
        if message or status:
            raise UsageError(message or f"exit status {status}")
        raise HelpShown

    def results(self) -> None:
        """Add ``--results``."""
        self.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of all sweeps (results)")

    def json(self) -> None:
        """Add ``--json``."""
        self.add_argument("--json", action="store_true", help="print JSON")


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace | None:
    """Parse ``arguments``; None after ``--help``.

    Raises:
        UsageError: they are wrong; an unknown option is answered with the nearest known one.
    """
    try:
        options, unknown = parser.parse_known_args(list(arguments))
    except HelpShown:
        return None
    if not unknown:
        return options
    first = unknown[0]
    if first.startswith("-"):
        known = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
        raise UsageError(f"unknown option {first.partition('=')[0]!r}; {nearest(first.partition('=')[0], known)}")
    raise UsageError(f"unexpected argument {first!r}; see '{parser.prog} --help'")


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dict.

    Raises:
        UsageError: one is not of that form, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"{option} {text}: write {option} KEY=VALUE")
        if key.strip() in found:
            raise UsageError(f"{option} {key.strip()} is given twice; give it once")
        found[key.strip()] = value.strip()
    return found
