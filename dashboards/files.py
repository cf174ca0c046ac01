"""Writing results: a file is either complete or not there, and a folder that refuses is said so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from core.errors import UsageError


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it; missing folders are made.

    Raises:
        UsageError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another folder") from None
    finally:
        _discard(temporary)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8; see `write_atomically`."""
    return write_atomically(path, lambda file: file.write(text.encode()))


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # its folder cannot be written or is no folder, so it was never there
