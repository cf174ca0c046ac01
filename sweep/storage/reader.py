"""Reading the results store; any number of readers at once, whether the sweep runs or not."""

from __future__ import annotations

import fcntl
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from core.errors import UnknownNameError, UsageError, shortened
from core.evaluators import Evaluator
from core.files import FULL
from core.pareto import hypervolume
from core.records import Record, SplitRecord, TimeRecord, TrialRecord, parse_record
from sweep.errors import StoreError
from sweep.storage.address import place
from sweep.storage.info import SweepInfo, parse_info
from sweep.storage.layout import INFO, LIVE, LOCK, TRIALS, is_name

LARGEST = 2**26
"""More bytes than any ``sweep.json`` or line of ``trials.jsonl`` has."""
COMPARED = "params_fraction"
"""What every finished trial has beside its score, and every table and plot reads."""
LATEST = 1e11
"""Seconds since the epoch, thousands of years from now."""


@dataclass(frozen=True)
class StoredSweep:
    """A sweep as read from disk.

    Attributes:
        info: what it is; its status is ``interrupted`` when it says ``running`` but nobody runs it.
        records: in the order in which they ended, each with what it reached on other splits.
        torn_lines: lines that are no JSON (a crash cut them short, or somebody edited them).
        folder: where it lies.
        running: how many trials are under way, as far as it runs.
        foreign_lines: lines that are whole and mean nothing to this release; they stay as they are.
        tested: keys of the trials that were evaluated on the test split as well -> why that failed, or nothing.
    """

    info: SweepInfo
    records: list[TrialRecord]
    torn_lines: int
    folder: Path
    running: int = 0
    foreign_lines: int = 0
    tested: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> Evaluator:
        """What its trials are scored by."""
        return self.info.request.scored

    @property
    def corner(self) -> tuple[float, float]:
        """Where hypervolumes of its fronts begin: the whole of a size, and the least of the score."""
        score = self.scored.score
        return 1.0, score.corner(self.info.state.original.get(score.name))

    @property
    def hypervolume(self) -> float:
        """Of its front over the parameters."""
        return hypervolume(self.records, COMPARED, self.scored.score.name, self.corner)


def read_sweep(results: Path, name: str, whole: bool = False, widths: bool = False) -> StoredSweep:
    """Read a sweep, running or not.

    Args:
        results: the folder of all sweeps.
        name: of the sweep.
        whole: with what happened at each channel set (``sites``, ``skipped``), most of a record; otherwise these are
            left empty, which for thousands of trials saves a good deal of memory.
        widths: with ``skipped``, and of each channel set its name, its size and how many channels were kept.

    Raises:
        UnknownNameError: no sweep of that name in ``results``.
        StoreError: its files cannot be read.
    """
    folder = require_sweep(results, name)
    require_files(folder)
    try:
        info = parse_info(_bounded(folder / INFO))
        score = info.request.scored.score.name
        lines = _parse(folder / TRIALS, (lambda record: record) if whole else narrowed if widths else slim, score)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    except UsageError as error:
        raise StoreError(f"{folder / INFO}: {error}; it was damaged or is of another version") from None
    if is_name(name):
        info = info.renamed(name)  # its folder was given another name
    if info.status == "running" and not is_locked(folder):
        info = replace(info, state=replace(info.state, status="interrupted", message="its process is gone"))
    return StoredSweep(
        info=info,
        records=lines.joined(),
        torn_lines=lines.torn,
        folder=folder,
        running=_running(folder) if info.status == "running" else 0,
        foreign_lines=lines.foreign,
        tested={key: record.reason for key, record in lines.tests.items()},
    )


def require_sweep(results: Path, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        UnknownNameError: no sweep of that name in ``results``; the nearest are named.
        UsageError: it is no name, but a path that may lead elsewhere.
        StoreError: there are trials of that name, but nothing says of which sweep.
    """
    if "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 255:
        raise UsageError(f"{shortened(repr(name))} is no name but a path; 'sweep list{place(results)}' shows the names")
    folder = results / name
    if not (folder / INFO).is_file():
        if _has_trials(folder):
            raise StoreError(f"{folder / INFO} is missing; restore it from a copy, or delete {folder}")
        raise UnknownNameError("sweep", name, sweep_names(results), where=f"{results}: ")
    return folder


def sweep_names(results: Path) -> list[str]:
    """Names of all sweeps in ``results``, damaged ones too, the oldest first."""
    folders = {path.parent for path in results.glob(f"*/{INFO}")} if results.is_dir() else set()
    folders |= {path.parent for path in results.glob(f"*/{TRIALS}") if _has_trials(path.parent)}
    return [folder.name for folder in sorted(folders, key=lambda folder: (folder.stat().st_ctime, folder.name))]


def _has_trials(folder: Path) -> bool:
    try:
        return (folder / TRIALS).stat().st_size > 0
    except OSError:
        return False


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


def unwritable(folder: Path, error: OSError) -> str:
    """What a `StoreError` says of a folder that cannot be written, with the remedy."""
    full = error.errno in FULL
    remedy = "free some space" if full else "check its permissions, or give another folder with --results"
    return f"{folder}: cannot be written ({error.strerror or error}); {remedy}"


def _running(folder: Path) -> int:
    try:
        return max(0, int(json.loads(_bounded(folder / LIVE))["running"]))
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError, StoreError):
        return 0  # not yet, or just being replaced


@dataclass
class _Lines:
    """What the lines of ``trials.jsonl`` say.

    Attributes:
        records: key -> the trial's record.
        tests: key -> what the trial reached on another split.
        times: key -> how fast its network is alone; the last one counts.
        torn: lines that are no JSON.
        foreign: lines that are JSON and no record as this release knows them.
    """

    records: dict[str, TrialRecord] = field(default_factory=dict)
    tests: dict[str, SplitRecord] = field(default_factory=dict)
    times: dict[str, TimeRecord] = field(default_factory=dict)
    torn: int = 0
    foreign: int = 0

    def joined(self) -> list[TrialRecord]:
        """The records, each with what it reached on the test split, and how fast it is alone."""
        found = self.records
        for later in (self.tests, self.times):
            found = {key: later[key].joined(record) if key in later else record for key, record in found.items()}
        return list(found.values())


def _parse(trials: Path, shaped: Callable[[TrialRecord], TrialRecord], score: str) -> _Lines:
    found = _Lines()
    with trials.open("rb") as file:
        for line in _lines(file):
            if not line.strip():
                continue
            try:
                record = _record(line)
            except (ValueError, RecursionError):  # no JSON
                found.torn += 1
                continue
            if isinstance(record, TrialRecord) and _is_sound(record, score):
                found.records.setdefault(record.key, shaped(record))
            elif isinstance(record, SplitRecord) and _is_finite(record):
                found.tests.setdefault(record.key, record)
            elif isinstance(record, TimeRecord) and _is_finite(record):
                found.times[record.key] = record
            else:
                found.foreign += 1
    return found


def _record(line: bytes) -> Record | None:
    """The record that a line holds; None: it is JSON, and no record as this release knows them.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return parse_record(line)
    except ValidationError:
        json.loads(line)
        return None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Each line; of one that is longer than any record, only so much that it is seen to be none."""
    while line := file.readline(LARGEST):
        yield line
        while len(line) == LARGEST and not line.endswith(b"\n"):
            line = file.readline(LARGEST)


def _is_sound(record: TrialRecord, score: str) -> bool:
    """Whether a record can be what a trial gave: finite numbers, and what is compared where it has finished."""
    complete = record.status != "finished" or {score, COMPARED} <= record.metrics.keys()
    return _is_finite(record) and 0 <= record.evaluate_seconds < LATEST and complete


def _is_finite(record: Record) -> bool:
    images = 0 if isinstance(record, TimeRecord) else record.images
    return all(0 <= value < LATEST for value in (record.started_at, record.seconds, images)) and all(
        math.isfinite(value) for value in record.metrics.values()
    )


def require_files(folder: Path) -> None:
    """Check that whatever has the name of one of a sweep's files is a file.

    Raises:
        StoreError: one is something else: a folder, a pipe, a device.
    """
    for name in (INFO, TRIALS, LOCK, LIVE):
        path = folder / name
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is not a file; remove it, or name another sweep")


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST)
    if len(content) == LARGEST:
        raise StoreError(f"{path} has more than {LARGEST // 2**20} MB: no sweep wrote that; restore it from a copy")
    return content


def slim(record: TrialRecord) -> TrialRecord:
    """``record`` without what happened at each channel set."""
    return record.model_copy(update={"sites": [], "skipped": {}})


def narrowed(record: TrialRecord) -> TrialRecord:
    """``record`` with only the name, the size and the number of kept channels of each channel set."""
    sites = [{name: site.get(name) for name in ("name", "size")} | {"kept": _count(site)} for site in record.sites]
    return record.model_copy(
        update={"sites": sites, "skipped": {sys.intern(k): sys.intern(v) for k, v in record.skipped.items()}}
    )


def _count(site: Mapping[str, object]) -> object:
    kept = site.get("kept")
    return len(kept) if isinstance(kept, list) else kept
