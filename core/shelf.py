"""Results that no trial changes, kept on disk by what they depend on, so that several processes make each of them once.

`Shelf` keeps nothing; `FolderShelf` keeps files. A file that is missing, damaged or cannot be written costs time and
nothing else: the result is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from core.errors import NeuronMergingError
from core.files import writing

VERSION = 1
"""Raised when what is kept is computed otherwise, or laid out otherwise."""
LOCKS = "locks"


@dataclass(frozen=True)
class Kept:
    """What is kept of a result: tensors by name, and a remark in words."""

    tensors: Mapping[str, Tensor]
    note: str = ""


class Elsewhere(Protocol):
    """A place that other machines look at too."""

    def fetch(self, name: str) -> bytes | None:
        """What was kept under ``name``, or None."""

    def keep(self, name: str, content: bytes) -> None:
        """Keep ``content`` under ``name``."""


class Shelf:
    """Keeps nothing."""

    def once(self, what: str, make: Callable[[], Kept]) -> Kept:
        """What ``make`` gives, or gave to this or another process for the same ``what``.

        Args:
            what: everything that the result depends on, in words.
            make: makes it.
        """
        del what
        return make()


@dataclass(frozen=True)
class FolderShelf(Shelf):
    """Keeps files in a folder, one for each result; while one process makes it, others that want it wait.

    Attributes:
        folder: it is made when there is something to put there.
        elsewhere: asked for what is not in the folder, and given what is new.
    """

    folder: Path
    elsewhere: Elsewhere | None = None

    def once(self, what: str, make: Callable[[], Kept]) -> Kept:
        """As in `Shelf.once`."""
        what = f"{VERSION} {torch.__version__} {what}"
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        found = self._read(name, what)
        if found is not None:
            return found
        with self._alone(name):
            found = self._read(name, what) or self._ask(name, what)
            if found is None:
                found = make()
                self._write(name, what, found)
        return found

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _read(self, name: str, what: str) -> Kept | None:
        try:
            return unpacked(self._path(name).read_bytes(), what)
        except OSError:
            return None

    def _ask(self, name: str, what: str) -> Kept | None:
        content = None if self.elsewhere is None else self.elsewhere.fetch(name)
        if content is None:
            return None
        self._put(name, content)
        return unpacked(content, what)

    def _write(self, name: str, what: str, made: Kept) -> None:
        content = packed(made, what)
        self._put(name, content)
        if self.elsewhere is not None:
            self.elsewhere.keep(name, content)

    def _put(self, name: str, content: bytes) -> None:
        with contextlib.suppress(NeuronMergingError, OSError), writing(self._path(name)) as path:
            path.write_bytes(content)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Wait until no other process makes the same thing: a lock on one byte of one file, freed when we die."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / LOCKS).open("a")
        except OSError:
            yield
            return
        with file:
            with contextlib.suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX, 1, int(name[:8], 16))
            yield


def packed(made: Kept, what: str) -> bytes:
    """A result as the bytes of a safetensors file."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in made.tensors.items()}
    return save(tensors, metadata={"what": what, "note": made.note})


def unpacked(content: bytes, what: str) -> Kept | None:
    """Undo `packed`; None where the bytes are damaged, or are of something else."""
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    except (SafetensorError, ValueError, KeyError):
        return None
    return Kept(tensors, metadata.get("note", "")) if metadata.get("what") == what else None


def digest_of(*values: Any) -> str:
    """32 hex digits of what tensors, and tuples or mappings of them, hold."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous()
            found.update(f"{array.dtype} {tuple(array.shape)} ".encode())
            found.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")
        elif isinstance(value, (tuple, list)):
            found.update(digest_of(*value).encode())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:32]


def network_digest(model: nn.Module, code: str) -> str:
    """32 hex digits of a network: its weights, buffers and ``code``."""
    return digest_of(code, *(part for name, value in model.state_dict().items() for part in (name, value)))


def is_ours(part: Any) -> bool:
    """Whether a part belongs to this package: what a user's part gives may change with its code, and is not kept."""
    named: str = part.__module__
    return named.partition(".")[0] == __name__.partition(".")[0]
