"""Photographs that are decoded once, into a file of bytes that any number of processes map into their memory.

The file lies in the cache folder under a name that changes with the photographs (names, sizes, times) and with what is
seen of them. While it is written it has another name, and beside it stands how far it is, so that whoever comes after
somebody that was broken off goes on from there, and whoever comes at the same time waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from core.errors import DataError, DiskFullError
from core.files import FULL
from core.pixels import Mapped

FOLDER = "decoded"
VERSION = "1"
"""Of what is written; a file of another one is not looked at."""
CHUNK = 256

Decode = Callable[[Sequence[Path]], Iterator[Tensor]]
"""paths -> their images uint8 (3, side, side), in the same order."""


def decoded(
    paths: Sequence[Path], frame: str, side: int, cache: Path, decode: Decode, tell: Callable[[int], None]
) -> Mapped:
    """Return the images of ``paths`` in a file, decoding those that are not in it yet.

    Args:
        paths: of the photographs.
        frame: what is seen of them, in words.
        side: of the squares that they become, in pixels.
        cache: folder for downloads and the like.
        decode: decodes some of them.
        tell: hears how many are there.

    Raises:
        DataError: a photograph cannot be decoded, or the file cannot be written.
        DiskFullError: there is no room for it.
    """
    folder = cache.absolute() / FOLDER  # workers have another working directory
    found = Mapped(folder / f"{name_of(paths, frame)}.u8", (len(paths), 3, side, side))
    if found.path.is_file():
        return found
    each = 3 * side * side
    try:
        found.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(found.path) as part:
            if not found.path.is_file():  # somebody else has just finished it
                _fill(part, paths, each, decode, tell)
                part.replace(found.path)
                _progress(part).unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            needed = len(paths) * each / 1e9
            raise DiskFullError(
                f"{found.path.parent}: the decoded photographs take {needed:.1f} GB, and there is no room for them;"
                " free some space, or take fewer: image-folder:PATH?train=20&test=10"
            ) from None
        raise DataError(
            f"{found.path.parent} cannot be written ({error.strerror or error}); check its permissions"
        ) from None
    return found


def name_of(paths: Sequence[Path], frame: str) -> str:
    """16 hex digits that change with the files and with what is seen of them."""
    digest = hashlib.sha256(f"{VERSION}\0{frame}\0".encode())
    for path in paths:
        state = path.stat()
        digest.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file that is written to, and nobody else writes to it meanwhile."""
    part = path.with_suffix(".part")
    with part.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield part
    part.with_suffix(".lock").unlink(missing_ok=True)


def _progress(part: Path) -> Path:
    return part.with_suffix(".done")


def _fill(part: Path, paths: Sequence[Path], each: int, decode: Decode, tell: Callable[[int], None]) -> None:
    """Write what is not written yet, `CHUNK` by `CHUNK`.

    Raises:
        OSError: there is no room.
    """
    done = _written(part, len(paths) * each)
    with part.open("r+b" if done else "wb") as file:
        if not done:
            if shutil.disk_usage(part.parent).free < len(paths) * each:
                raise OSError(FULL[0], os.strerror(FULL[0]))
            os.posix_fallocate(file.fileno(), 0, max(1, len(paths) * each))
        for start in range(done, len(paths), CHUNK):
            file.seek(start * each)
            for image in decode(paths[start : start + CHUNK]):
                file.write(np.ascontiguousarray(image.numpy()).data)
            file.flush()
            os.fsync(file.fileno())
            done = min(start + CHUNK, len(paths))
            _progress(part).write_text(str(done))
            tell(done)


def _written(part: Path, size: int) -> int:
    """How many images somebody who was broken off has left, at least."""
    try:
        return int(_progress(part).read_text()) if part.stat().st_size == size else 0
    except (OSError, ValueError):
        return 0
