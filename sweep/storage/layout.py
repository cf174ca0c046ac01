"""What a sweep may be called: its name is a folder's, beside what the results folder has of its own."""

from __future__ import annotations

from core.errors import UsageError
from sweep.storage.reader import INFO, LIVE, LOCK, NAME, RESERVE, STOP, TRIALS
from sweep.tracking.uri import ARTIFACTS, DATABASE

RESERVED = {ARTIFACTS, INFO, TRIALS, LOCK, RESERVE, STOP, LIVE}
"""MLflow's files, and names that a results folder in object storage does not copy."""


def check_name(name: str) -> None:
    """Raise a `UsageError` when ``name`` cannot be that of a new sweep."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: use letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100"
        )
    if name.lower() in RESERVED or name.lower().startswith(DATABASE):
        raise UsageError(f"--name {name!r}: the results folder has a file of that name; choose another --name")
