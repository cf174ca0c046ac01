"""Reading the results store; any number of readers at once, whether the sweep runs or not."""

from __future__ import annotations

import errno
import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from core.config import TrialRecord, explain
from core.errors import NeuronMergingError, UnknownNameError
from sweep.errors import StoreError
from sweep.info import SweepInfo

INFO, TRIALS, LOCK, RESERVE, STOP, LIVE = "sweep.json", "trials.jsonl", "lock", "reserve", "stop", "live.json"


@dataclass(frozen=True)
class StoredSweep:
    """A sweep as read from disk.

    Args:
        info: what it is; its status is ``interrupted`` when it says ``running`` but nobody runs it.
        records: in the order in which they ended.
        torn_lines: lines that are no records (a crash cut them short).
        folder: where it lies.
        running: how many trials are under way, as far as it runs.
    """

    info: SweepInfo
    records: list[TrialRecord]
    torn_lines: int
    folder: Path
    running: int = 0


def read_sweep(results: Path, name: str, whole: bool = False) -> StoredSweep:
    """Read a sweep, running or not.

    Args:
        results: the folder of all sweeps.
        name: of the sweep.
        whole: with what happened at each channel set (``sites``, ``skipped``), most of a record; otherwise these are
            left empty, which for thousands of trials saves a good deal of memory.

    Raises:
        UnknownNameError: no sweep of that name in ``results``.
        StoreError: its files cannot be read.
    """
    folder = require_sweep(results, name)
    try:
        info = SweepInfo.model_validate_json((folder / INFO).read_bytes())
        records, torn = _parse(folder / TRIALS, whole)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    except ValidationError as error:
        raise StoreError(
            f"{folder / INFO}: {explain(error, SweepInfo)}; it was damaged or is of another version"
        ) from None
    if info.status == "running" and not is_locked(folder):
        info = info.model_copy(update={"status": "interrupted", "message": "its process is gone"})
    return StoredSweep(info, records, torn, folder, _running(folder) if info.status == "running" else 0)


def require_sweep(results: Path, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        UnknownNameError: no sweep of that name in ``results``; the nearest are named.
    """
    folder = results / name
    if not (folder / INFO).is_file():
        raise UnknownNameError("sweep", name, sweep_names(results), where=f"{results}: ")
    return folder


def sweep_names(results: Path) -> list[str]:
    """Names of all sweeps in ``results``, the oldest first."""
    infos = sorted(results.glob(f"*/{INFO}"), key=lambda path: path.parent.stat().st_ctime) if results.is_dir() else []
    return [path.parent.name for path in infos]


def is_locked(folder: Path) -> bool:
    """True while a process runs the sweep in ``folder``."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def unwritable(folder: Path, error: OSError) -> StoreError:
    """The error for a folder that cannot be written, with the remedy."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "check its permissions, or give another folder with --results"
    return StoreError(f"{folder}: cannot be written ({error.strerror or error}); {remedy}")


def _running(folder: Path) -> int:
    try:
        return int(json.loads((folder / LIVE).read_bytes())["running"])
    except (OSError, ValueError, KeyError, TypeError):  # not yet, or just being replaced
        return 0


def _parse(trials: Path, whole: bool) -> tuple[list[TrialRecord], int]:
    records: dict[str, TrialRecord] = {}
    torn = 0
    with trials.open("rb") as lines:
        for line in lines:
            try:
                record = TrialRecord.model_validate_json(line)
            except (ValidationError, NeuronMergingError):
                torn += bool(line.strip())
            else:
                records.setdefault(record.key, record if whole else slim(record))
    return list(records.values()), torn


def slim(record: TrialRecord) -> TrialRecord:
    """``record`` without what happened at each channel set."""
    return record.model_copy(update={"sites": [], "skipped": {}})
