"""The results store: one folder a sweep (see `sweep.storage.layout`), the truth about it.

Every record is handed to the operating system before the next is taken, so a killed process loses none; the file is
forced to the disk at most once a second, so a power cut loses the records of a second. A line that a crash cut short
is left out by readers, who say so, and taken away when the sweep is resumed: its trial runs again. When the disk is
full, a reserve that was set aside makes room for what was computed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from core.errors import NeuronMergingError, UsageError
from core.records import Record
from sweep.errors import StoreError
from sweep.storage.address import place
from sweep.storage.info import SweepInfo, SweepRequest, SweepState
from sweep.storage.layout import INFO, LIVE, LOCK, RESERVE, STOP, TRIALS, check_name
from sweep.storage.locks import hold
from sweep.storage.reader import read_sweep, require_sweep, unwritable

SYNC_SECONDS = LIVE_SECONDS = 1.0
RESERVE_BYTES = 2**20


class Store:
    """The writer of one sweep; made by `create_store` or `open_store`, closed by ``close`` or a ``with`` block.

    # NOTE: SQLite was considered for the records: a text file needs no transactions, survives a torn write more
    # plainly, and is read by any tool.
    """

    def __init__(self, folder: Path, lock: IO[str], info: SweepInfo) -> None:
        self.folder, self.info = folder, info
        self.trouble = ""
        self._lock = lock
        self._synced_at = self._lived_at = 0.0
        self._unwritten: list[bytes] = []
        try:
            (folder / RESERVE).write_bytes(os.urandom(RESERVE_BYTES))
            (folder / STOP).unlink(missing_ok=True)
            mend(folder / TRIALS)
            self._trials = (folder / TRIALS).open("ab", buffering=0)
        except OSError as error:
            raise StoreError(unwritable(folder, error)) from None
        self.save()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Record) -> None:
        """Add one record. Never raises: what cannot be written is kept, tried again, and told by ``trouble``.

        On a full disk the reserve is given up, so that records which are already computed can still be stored; a
        sweep should end as soon as ``trouble`` is not empty.
        """
        self._unwritten.append(record.model_dump_json().encode() + b"\n")
        try:
            self._flush()
        except OSError as error:
            self.trouble = unwritable(self.folder, error)
            (self.folder / RESERVE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._flush()

    @property
    def stop_file(self) -> Path:
        """What ``sweep stop`` leaves."""
        return self.folder / STOP

    def live(self, running: int) -> None:
        """Say how many trials are under way, at most once a second; no harm is done where it cannot be said."""
        now = time.monotonic()
        if now - self._lived_at < LIVE_SECONDS:
            return
        self._lived_at = now
        temporary = self.folder / f"{LIVE}.new"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({"running": running}))
            temporary.replace(self.folder / LIVE)

    @property
    def state(self) -> SweepState:
        """How the sweep goes, as it was last saved."""
        return self.info.state

    def save(self, state: SweepState | None = None, request: SweepRequest | None = None) -> None:
        """Write what the sweep is, with another state or request, so that a reader sees the old or the new one.

        Raises:
            StoreError: it cannot be written.
        """
        self.info = SweepInfo(request or self.info.request, state or self.info.state)
        temporary = self.folder / f"{INFO}.new"
        try:
            with temporary.open("w") as file:
                file.write(self.info.to_json())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / INFO)
        except OSError as error:
            raise StoreError(unwritable(self.folder, error)) from None

    def close(self) -> None:
        """Force everything to the disk and free the lock.

        Raises:
            StoreError: records are left that could not be written.
        """
        if self._trials.closed:
            return
        try:
            for name in (RESERVE, STOP, LIVE):
                (self.folder / name).unlink(missing_ok=True)
            self._flush()
            os.fsync(self._trials.fileno())
        except OSError as error:
            raise StoreError(
                f"{unwritable(self.folder, error)}; {len(self._unwritten)} trials could not be stored"
            ) from None
        finally:
            self._trials.close()
            self._lock.close()

    def _flush(self) -> None:
        while self._unwritten:
            self._write(self._unwritten[0])
            self._unwritten.pop(0)
        now = time.monotonic()
        if now - self._synced_at > SYNC_SECONDS:
            os.fsync(self._trials.fileno())
            self._synced_at = now

    def _write(self, line: bytes) -> None:
        """Write the whole line or nothing of it.

        Raises:
            OSError: it could not be written; the file is as it was.
        """
        start = os.fstat(self._trials.fileno()).st_size
        try:
            if self._trials.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._trials.fileno(), start)
            raise


def create_store(
    results: Path, name: str | None, make_info: Callable[[str], SweepInfo], default: str = "sweep"
) -> Store:
    """Start a new sweep's store and hold its lock.

    Args:
        results: the folder of all sweeps; made if missing.
        name: the sweep's name; None: ``default``, ``default-2``, ``default-3`` … whichever is free.
        make_info: gives the sweep's info for the name that was found.
        default: what a sweep without a name is called.

    Raises:
        UsageError: the name is taken or not allowed.
        StoreError: the folder cannot be written.
    """
    names = iter([name]) if name is not None else _numbered(default)
    while True:  # a given name is tried once, the numbered ones do not end
        candidate = next(names)
        check_name(candidate)
        folder = results / candidate
        try:
            results.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError as error:
            if not results.is_dir():
                raise StoreError(unwritable(results, error)) from None
            if name is None:
                continue
            raise UsageError(_taken(results, candidate)) from None
        except OSError as error:
            raise StoreError(unwritable(results, error)) from None
        try:
            return Store(folder, hold(folder / LOCK), make_info(candidate))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def open_store(results: Path, name: str) -> Store:
    """Go on with a sweep that is there, holding its lock.

    Raises:
        UnknownNameError: no sweep of that name.
        UsageError: somebody runs it.
        StoreError: its files cannot be read or written.
    """
    folder = require_sweep(results, name)
    require_own_files(folder)
    try:
        lock = hold(folder / LOCK)
    except BlockingIOError:
        raise UsageError(_running(results, name)) from None
    except OSError as error:
        raise StoreError(unwritable(folder, error)) from None
    try:
        return Store(folder, lock, read_sweep(results, name).info)
    except BaseException:
        lock.close()
        raise


def require_own_files(folder: Path) -> None:
    """Check that the files that are going to be written are files of the sweep's own.

    Raises:
        StoreError: one is a link, which may lead anywhere, or no file.
    """
    for name in (INFO, TRIALS, LOCK, RESERVE, STOP, LIVE, f"{INFO}.new", f"{LIVE}.new"):
        path = folder / name
        if path.is_symlink():
            raise StoreError(f"{path} is a link, and a sweep would write to where it leads; remove it")
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is not a file, and a sweep would write to it; remove it")


def mend(trials: Path) -> None:
    """Take away a last line without an end, which a crash cut short."""
    if not trials.exists():
        return
    with trials.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def remove_empty(store: Store) -> bool:
    """Take the folder of a sweep without any trial away, so that its name is free again; say whether it was."""
    if (store.folder / TRIALS).stat().st_size > 0:
        return False
    shutil.rmtree(store.folder, ignore_errors=True)
    return True


def _numbered(default: str) -> Iterator[str]:
    yield default
    yield from (f"{default}-{number}" for number in itertools.count(2))


def _taken(results: Path, name: str) -> str:
    try:
        sweep = read_sweep(results, name)
        what = f"sweep {name!r} ({sweep.info.status}, {len(sweep.records)} trials) is there already"
    except NeuronMergingError:
        what = f"{results / name} is there already"
    return f"{what}; go on with 'sweep resume {name}{place(results)}', give another --name, or delete {results / name}"


def _running(results: Path, name: str) -> str:
    state, called = read_sweep(results, name).info.state, f"{name}{place(results)}"
    return (
        f"sweep {name!r} is running (process {state.pid} on {state.host}); 'sweep status {called}' shows how far it is,"
        f" 'sweep stop {called}' ends it"
    )
