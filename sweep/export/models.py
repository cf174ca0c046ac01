"""The networks on a sweep's front, as files beside its records, made when it ends."""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import CheckpointError, NeuronMergingError
from core.export import read_metadata, save
from core.files import writing
from core.records import TimeRecord, TrialRecord
from sweep.errors import first_line
from sweep.export.card import card_of, metadata_of
from sweep.export.choose import front
from sweep.export.formats import blank
from sweep.export.rebuild import Rebuilder
from sweep.reporting.progress import Reporter
from sweep.storage.layout import MODELS
from sweep.storage.reader import StoredSweep
from sweep.tracking import check_tracking
from sweep.tracking.summary import Network

if TYPE_CHECKING:
    from sweep.tracking.logged import ModelLog

OWN = re.compile(r"[0-9a-f]{16}\.(safetensors|md)")
"""What we call our files; others in the folder are somebody else's."""
BUSY = 0.1
"""Spread of a latency from which on something else has run beside it."""
SHARE = 0.5
"""Of the free space, what one network may take at most: the records of other sweeps need some too."""


def make_models(
    rebuilder: Rebuilder, reporter: Reporter, timed: Callable[[TimeRecord], None] = lambda record: None
) -> dict[str, str]:
    """Write the networks on the front that are not there yet, and remove those that have left it.

    All of them, however many and however long it takes: each file is there in full or not at all, so whoever breaks
    this off keeps what is done, and the next session goes on.

    Args:
        rebuilder: of the sweep's networks; the sweep with whole records.
        reporter: hears of it.
        timed: gets how fast each of them is.

    Returns:
        Key -> why its network is not there, in words.

    Raises:
        NeuronMergingError: the original network cannot be had.
    """
    sweep = rebuilder.sweep
    folder = sweep.folder / MODELS
    wanted = {record.key: record for record in front(sweep)}
    with contextlib.suppress(OSError):
        for path in folder.glob("*"):
            if OWN.fullmatch(path.name) and path.stem not in wanted:
                path.unlink()
    new = [record for key, record in wanted.items() if not _is_there(folder, key)]
    failed, spreads = dict[str, str](), list[float]()
    if new:
        rebuilder.bench  # noqa: B018  what is wrong with it is wrong with every network, and said once
    for number, record in enumerate(new):
        reporter.step(number, len(new), f"network {record.key} of the front is rebuilt and measured")
        try:
            _require_room(sweep.folder, record)
            times = _write(folder, rebuilder, record)
            timed(times)
            spreads.append(times.metrics.get("idle_latency_spread", 0.0))
        except (NeuronMergingError, OSError) as error:
            failed[record.key] = first_line(error)
    if new:
        reporter.step(len(new), len(new), f"{len(new) - len(failed)} networks of the front are written")
    if spreads and statistics.median(spreads) > BUSY:
        noise = f"{100 * statistics.median(spreads):.0f} %"
        reporter.line(f"their latencies spread by {noise}: the machine was not idle; compare them with care")
    return failed


def _is_there(folder: Path, key: str) -> bool:
    path = folder / f"{key}.safetensors"
    try:
        about: Mapping[str, object] = read_metadata(path)
    except CheckpointError:
        return False
    return about.get("key") == key and path.with_suffix(".md").is_file()


def _require_room(folder: Path, record: TrialRecord) -> None:
    """Look whether a network leaves enough space for everything else.

    Raises:
        OSError: it does not.
    """
    free, size = shutil.disk_usage(folder).free, record.metrics.get("bytes", 0.0)
    if size > SHARE * free:
        raise OSError(f"it takes {size / 2**20:,.0f} MB, and {free / 2**20:,.0f} MB are free; free some, and resume")


def _write(folder: Path, rebuilder: Rebuilder, record: TrialRecord) -> TimeRecord:
    rebuilt = rebuilder.rebuild(record)
    save(rebuilt.made.model, folder / f"{record.key}.safetensors", dict(metadata_of(rebuilt, rebuilder)))
    with writing(folder / f"{record.key}.md") as path:
        path.write_text(card_of(rebuilt, rebuilder, f"{record.key}.safetensors"), encoding="utf-8")
    return rebuilt.timed()


def written(sweep: StoredSweep) -> list[Network]:
    """The networks on the front that are there, the most accurate first."""
    folder = sweep.folder / MODELS
    there = [record for record in front(sweep) if _is_there(folder, record.key)]
    return [Network(r, (folder / f"{r.key}.safetensors", folder / f"{r.key}.md")) for r in there]


def log_models(uri: str, rebuilder: Rebuilder, reporter: Reporter) -> str:
    """Hand the networks that are on disk to MLflow, where they are its logged models.

    Returns:
        Why it does not have them all, or nothing.
    """
    networks = written(rebuilder.sweep)
    if not networks:
        return ""
    try:
        check_tracking(uri)
        model_log(uri, rebuilder).front(networks, reporter)
    except Exception as error:  # whatever the server or the network does, the files are there
        return first_line(error)
    return ""


def model_log(uri: str, rebuilder: Rebuilder) -> ModelLog:
    """Where a sweep's networks go in MLflow.

    Raises:
        TrackingError: the sweep is not there.
    """
    from sweep.tracking.logged import ModelLog  # of MLflow, which takes a second to load

    baseline = rebuilder.baseline
    return ModelLog(uri, rebuilder.sweep.info, baseline.model, blank(rebuilder.bench.some(1)))
