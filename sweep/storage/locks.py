"""Locks on files, which the end of their process frees however it comes."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def hold(path: Path, wait: bool = False) -> IO[str]:
    """Hold the lock of a file, made if it is not there, until what is returned is closed.

    Args:
        path: of the file.
        wait: until whoever holds it lets it go.

    Raises:
        OSError: somebody holds it, or the file cannot be opened.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
