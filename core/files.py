"""Reading a file with a sentence for what is wrong, and writing one all or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from core.errors import CheckpointError, DiskFullError, UsageError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What becomes the name of a file: a search space, a sweep."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and move it there when the block ends well; otherwise leave no trace.

    Raises:
        UsageError: the folder cannot be made or written to.
        DiskFullError: there is no space left.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(f"{path} cannot be written: {error.strerror}; free some space and try again") from None
        raise UsageError(f"{path} cannot be written: {error.strerror or error}; choose another place") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Read the first ``count`` bytes of a checkpoint, or all.

    Raises:
        CheckpointError: it is missing, a folder, or unreadable.
    """
    with _opened(path) as file:
        return file.read(count)


def file_digest(path: Path) -> str:
    """The SHA-256 of a checkpoint, read piece by piece.

    Raises:
        CheckpointError: it is missing, a folder, or unreadable.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        if not path.exists():
            where = "" if path.is_absolute() else "; it is looked for beside the space's file, then in this folder"
            raise CheckpointError(f"checkpoint {path} does not exist{where}")
        if not path.is_file():
            raise CheckpointError(f"checkpoint {path} is not a file; name the file with the weights in it")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None
