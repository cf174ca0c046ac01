"""Results that live in object storage: worked on in a local folder, which is copied there again and again.

``--results s3://bucket/path`` (or ``gs://``, ``hdfs://``, ``file:///``: what pyarrow can open) means: fetch what is
there, work in a local folder, and push what changed every `PERIOD` seconds and at the end. So a driver whose machine is
lost is resumed on another one, having lost at most that long. A storage that does not answer never disturbs the sweep;
what could not be pushed is told at the end, stays in the local folder, and is pushed by the next command.

MLflow's own files stay behind, since a database cannot be copied while it is written: give a server, or rebuild them
with ``sweep sync``. Object storage has no locks: nothing keeps two machines from running one sweep at the same time,
and of both the one that pushes last wins.

An address with a key in it (``s3://KEY:SECRET@bucket``) is neither shown nor stored; the process remembers it. Whoever
can write to the storage chooses the names there: one that would lead out of the local folder ends the fetch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from core.errors import UsageError
from sweep.errors import HIDDEN, StoreError, first_line, masked
from sweep.storage.endpoint import require_endpoint
from sweep.storage.layout import ARTIFACTS, DATABASE, LIVE, LOCK, MIRRORED, RESERVE, STOP

PERIOD = 30.0
LEFT_OUT = {MIRRORED, LIVE, LOCK, RESERVE, STOP, ARTIFACTS}
CACHE_DIR = "SWEEP_CACHE_DIR"
_addresses: dict[Path, str] = {}
"""Of the folders that this process has fetched; with keys, so never written down."""


def fetch(uri: str) -> Path:
    """Bring the local folder of ``uri`` up to date and return it.

    A file that changed here since it was last pushed stays as it is; if it changed there too, the one from there is
    taken and the local one kept beside it, named ``.kept``.

    Raises:
        StoreError: the storage cannot be read.
    """
    home = Path(os.environ.get(CACHE_DIR) or Path.home() / ".cache" / "neuron-merging-sweep")
    folder = home / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]
    _addresses[folder] = uri
    mirror = Mirror(uri, folder)
    from pyarrow import ArrowException

    try:
        mirror.fetch()
    except (OSError, ArrowException) as error:
        raise StoreError(
            f"{masked(uri)}: cannot be read ({first_line(error)}); check the address and the credentials"
        ) from None
    return folder


class Mirror:
    """Keeps ``uri`` equal to ``folder``: in a ``with`` block every `PERIOD` seconds, and at its end.

    ``trouble`` says after the block what could not be pushed; it is empty when all is well.
    """

    @classmethod
    def of(cls, folder: Path) -> Mirror:
        """The mirror of a folder that `fetch` gave.

        Raises:
            UsageError: another process has fetched it, with a key that this one was not given.
        """
        uri = _addresses.get(folder) or _state(folder)["uri"]
        if HIDDEN in uri:
            raise UsageError(f"{folder} is a copy of {uri}, and keys are not kept: give that address with --results")
        return cls(uri, folder)

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder, self.trouble = uri, folder, ""
        self._store, self._root = _open(uri)
        self._known: dict[str, list[int]] = {}
        self._links: list[str] = []
        if (folder / MIRRORED).is_file():
            self._known = _state(folder)["files"]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_pushing, name="mirror", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._try_push()

    def fetch(self) -> None:
        """Bring every file here that changed there."""
        from pyarrow.fs import FileSelector, FileType

        found = self._store.get_file_info(FileSelector(self._root, allow_not_found=True, recursive=True))
        for info in found:
            name = str(PurePosixPath(info.path).relative_to(self._root))
            if info.type != FileType.File or not _is_mirrored(PurePosixPath(name)):
                continue
            self._require_inside(name)
            there = [info.size, info.mtime_ns]
            known = self._known.get(name, [-1, -1, -1, -1])
            if known[2:] != there:
                self._bring(name, kept=_mark(self.folder / name) not in (None, known[:2]))
                self._known[name] = [*(_mark(self.folder / name) or [-1, -1]), *there]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save()

    def push(self) -> None:
        """Copy every file there that changed here, and take away what is gone here."""
        here = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        here = {name: path for name, path in here.items() if _is_mirrored(PurePosixPath(name))}
        self._links = [name for name, path in here.items() if path.is_symlink()]
        here = {name: path for name, path in here.items() if name not in self._links}
        try:
            for name, path in here.items():
                mark = _mark(path)
                if mark is not None and self._known.get(name, [])[:2] != mark:
                    self._known[name] = [*mark, *self._send(name, path)]
            for name in self._known.keys() - here.keys():
                self._store.delete_file(self._there(name))
                del self._known[name]
        finally:
            self._save()

    def _keep_pushing(self) -> None:
        while not self._end.wait(PERIOD):
            self._try_push()

    def _try_push(self) -> None:
        from pyarrow import ArrowException

        try:
            self.push()
            self.trouble = self._left_out()
        except (OSError, ArrowException) as error:
            self.trouble = (
                f"{masked(self.uri)}: cannot be written ({first_line(error)}); the results are in {self.folder}, and"
                " the next command with these --results copies them"
            )

    def _bring(self, name: str, kept: bool) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept:
            path.replace(f"{path}.kept")
        part = path.with_name(f"{path.name}.part")
        with self._store.open_input_stream(self._there(name)) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        part.replace(path)

    def _send(self, name: str, path: Path) -> list[int]:
        """Copy one file; its size and time of change there. Of a JSON-lines file whole lines only."""
        place = self._there(name)
        if self._store.type_name == "local":
            self._store.create_dir(str(PurePosixPath(place).parent), recursive=True)
        with path.open("rb") as source, self._store.open_output_stream(place) as target:
            if path.suffix == ".jsonl":
                data = source.read()
                target.write(data[: data.rfind(b"\n") + 1])
            else:
                shutil.copyfileobj(source, target)
        info = self._store.get_file_info(place)
        return [info.size, info.mtime_ns]

    def _there(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _save(self) -> None:
        new = self.folder / f"{MIRRORED}.part"
        new.unlink(missing_ok=True)
        new.touch(0o600)
        new.write_text(json.dumps({"uri": masked(self.uri), "files": self._known}))
        new.replace(self.folder / MIRRORED)

    def _require_inside(self, name: str) -> None:
        """Check that a file of that name would be written inside the local folder.

        Raises:
            StoreError: it would be written elsewhere.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not self._leads_inside(self.folder / path):
            raise StoreError(
                f"{masked(self.uri)}: the name {name!r} leads out of the results folder; remove it from the storage"
            )

    def _left_out(self) -> str:
        """What was not pushed because it is a link, which may lead to any file of this machine."""
        if not self._links:
            return ""
        return f"{self.folder / self._links[0]} is a link and was not copied to {masked(self.uri)}; put the file there"

    def _leads_inside(self, path: Path) -> bool:
        return path.parent.resolve().is_relative_to(self.folder.resolve())


def _state(folder: Path) -> dict[str, Any]:
    """What the last push or fetch has left in the local folder.

    Raises:
        StoreError: it is damaged.
    """
    try:
        found = json.loads((folder / MIRRORED).read_text())
        files = {str(name): [int(number) for number in marks] for name, marks in found["files"].items()}
        return {"uri": str(found["uri"]), "files": files}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        raise StoreError(
            f"{folder / MIRRORED} is damaged; delete it, and the next command fetches anew, keeping what differs here"
        ) from None


def _open(uri: str) -> tuple[Any, str]:
    """The file system of ``uri``, and the path in it without a slash at the end.

    Raises:
        UsageError: no file system takes such an address.
        StoreError: nobody answers there.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        store, path = FileSystem.from_uri(uri)
    except (ArrowException, ValueError, OSError) as error:
        raise UsageError(
            f"--results {masked(uri)}: {first_line(error)}; give a folder, or s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH"
        ) from None
    require_endpoint(uri)
    return store, path.rstrip("/")


def _is_mirrored(name: PurePosixPath) -> bool:
    """Whether a file is part of the results, and not of this machine's running or of MLflow."""
    return not (LEFT_OUT & set(name.parts) or name.name.startswith(DATABASE) or name.suffix in (".part", ".new"))


def _mark(path: Path) -> list[int] | None:
    """Size and time of change of a local file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns]
