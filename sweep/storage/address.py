"""What a user writes to name a results folder, for the commands that messages advise."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from sweep.storage.layout import MIRRORED

USUAL = Path("results")
"""Where sweeps lie unless --results says something else."""


def place(results: Path) -> str:
    """The option that names ``results``, with a space before it; empty where it is the usual folder.

    Of a local copy of a folder in object storage it is the address there; a key in it is not known any more, and has
    to be put in again.
    """
    if results == USUAL:
        return ""
    return f" --results {shlex.quote(_address(results) or str(results))}"


def _address(results: Path) -> str:
    try:
        return str(json.loads((results / MIRRORED).read_text())["uri"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""  # no copy, or damaged, which whoever reads it in earnest says
