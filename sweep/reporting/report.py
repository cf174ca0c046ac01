"""A sweep's report: what is on disk, put before `dashboards.report`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.complaints import show
from core.preprocessing import Preprocessing
from dashboards.report import Source, write_page
from sweep.reporting.failures import grouped
from sweep.reporting.outcome import reasons_of
from sweep.reporting.status import unread
from sweep.search.importance import importance_of
from sweep.storage.address import place
from sweep.storage.reader import StoredSweep, read_sweep
from sweep.text import duration


def write_report(sweeps: Sequence[StoredSweep], path: Path) -> Path:
    """Write the report of one sweep, or of several side by side; what they lack of their records is read again.

    Raises:
        NeuronMergingError: the file cannot be written, or a sweep cannot be read.
    """
    whole = [read_sweep(sweep.folder.parent, sweep.folder.name, widths=True) for sweep in sweeps]
    return write_page([source_of(sweep) for sweep in whole], path)


def source_of(sweep: StoredSweep) -> Source:
    """A sweep as its report needs it."""
    return Source(
        name=sweep.info.name,
        records=sweep.records,
        original=sweep.info.state.original,
        export=f"sweep export {sweep.info.name}{place(sweep.folder.parent)}",
        failures=grouped(reasons_of(sweep)),
        remarks=tuple(remarks(sweep)),
        facts=tuple((label, text) for label, text in facts(sweep) if text),
        importance=importance_of(sweep.records, sweep.info.request.seed, sweep.scored),
        scored=sweep.scored,
    )


def remarks(sweep: StoredSweep) -> Iterator[str]:
    """What a reader must know before the figures."""
    info, state = sweep.info, sweep.info.state
    if not state.original:
        yield f"{info.name}: its original network is not there yet, so nothing has been compressed."
    elif not sweep.records:
        resume = f"sweep resume {info.name}{place(sweep.folder.parent)}"
        yield f"{info.name}: no trial has ended yet; '{resume}' goes on with it."
    elif info.status != "finished":
        why = f" ({state.message})" if state.message else ""
        yield f"{info.name} is {info.status}{why}: {len(sweep.records)} of {state.total} trials are here."
    if sweep.scored.word != "accuracy" and sweep.scored.by_image:
        yield f"{info.name}: accuracy is the {sweep.scored.label}, in percent."
    for line in unread(sweep):
        yield f"{info.name}: {line}."


def facts(sweep: StoredSweep) -> Iterator[tuple[str, str]]:
    """Where the figures come from, label and value; an empty value says nothing."""
    request, state = sweep.info.request, sweep.info.state
    baseline = request.resolved.get("baseline")
    network = baseline if isinstance(baseline, dict) else {}
    data = state.dataset
    yield "original network", " on ".join(str(network[name]) for name in ("model", "dataset") if name in network)
    yield "its key", state.baseline_key
    yield (
        "preprocessing",
        ", ".join(f"{name} {show(network[name])}" for name in Preprocessing.model_fields if name in network),
    )
    yield (
        "evaluated on",
        ", ".join(
            text
            for text in (
                str(data.get("split", "")),
                f"{data['images']:,} images" if "images" in data else "",
                sweep.info.precision,
            )
            if text
        ),
    )
    yield "data digest", str(data.get("digest", ""))
    yield "search space", request.space
    yield "search", f"{request.search}, seed {request.seed}" + ", racing" * request.race
    yield "trials", f"{len(sweep.records)} of {state.total}"
    yield "begun", time.strftime("%Y-%m-%d %H:%M", time.localtime(state.started_at)) if state.started_at else ""
    yield "took", f"{duration(state.seconds)} on {state.workers} workers" if state.ended_at and state.workers else ""
    yield "host", state.host
    yield "versions", ", ".join(f"{name} {text}" for name, text in state.versions.items())
    yield "MLflow run", state.run_id
