"""The state of a sweep as ``sweep status`` tells it, from the results store alone."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from typing import Any

from core.metrics import TEST
from core.pareto import pareto_front
from dashboards import front_table
from dashboards.textplot import front_picture
from sweep.reporting.failures import failure_lines
from sweep.reporting.meter import Progress, progress_of
from sweep.reporting.outcome import in_fixed_order, pareto_info, reasons_of
from sweep.reporting.progress import describe
from sweep.storage.address import place
from sweep.storage.layout import TRIALS
from sweep.storage.reader import StoredSweep
from sweep.text import columns


def progress(sweep: StoredSweep) -> Progress:
    """How far it is; a sweep that does not run has no rate."""
    state = sweep.info.state
    found = progress_of(sweep.records, state.total, time.time(), max(state.started_at, state.resumed_at), sweep.scored)
    return found if sweep.info.status == "running" else replace(found, rate=0.0, eta_seconds=math.nan)


def as_json(sweep: StoredSweep) -> dict[str, Any]:
    """The state as plain data; rate and expected time are null unless it runs."""
    info, found, score = sweep.info, progress(sweep), sweep.scored.score.name
    return {
        "name": info.name,
        "space": info.request.space,
        "status": info.status,
        "message": info.state.message,
        "finished": found.finished,
        "failed": found.failed,
        "stopped": found.stopped,
        "running": sweep.running,
        "total": found.total,
        "rate": round(found.rate, 3) if found.rate > 0 else None,
        "eta_seconds": round(found.eta_seconds, 1) if found.rate > 0 else None,
        f"best_{score}": found.best.metrics[score] if found.best else None,
        "reasons": reasons_of(sweep),
        "torn_lines": sweep.torn_lines,
        "foreign_lines": sweep.foreign_lines,
        "front": front_of(sweep),
    }


def front_of(sweep: StoredSweep) -> list[dict[str, Any]]:
    """The front so far: key, split, accuracies and fraction of parameters, the smallest first."""
    score = sweep.scored.score.name
    names = (score, f"{TEST}{score}", "params_fraction")
    return [
        {"key": record.key, "split": record.split}
        | {name: record.metrics[name] for name in names if name in record.metrics}
        for record in pareto_front(in_fixed_order(sweep.records), y=score)
    ]


def as_text(sweep: StoredSweep) -> list[str]:
    """The state in a line, with what is wrong below."""
    why = f" ({sweep.info.state.message})" if sweep.info.state.message else ""
    torn = [f"  {line}" for line in unread(sweep)]
    name = f"{sweep.info.name}{place(sweep.folder.parent)}"
    failed = [f"  {line}" for line in failure_lines(reasons_of(sweep), f"sweep logs {name}")]
    running = f"{sweep.running} running, " if sweep.running else ""
    go_on = [f"  go on with it:  sweep resume {name}"] if resumable(sweep) else []
    head = f"{sweep.info.name}: {sweep.info.status}{why}, {running}{describe(progress(sweep))}"
    return [head, *torn, *failed, *go_on]


def unread(sweep: StoredSweep) -> list[str]:
    """What of ``trials.jsonl`` is not shown, in sentences."""
    torn, foreign = sweep.torn_lines, sweep.foreign_lines
    out = [f"{torn} damaged lines in {TRIALS} are left out"] if torn else []
    return out + ([f"{foreign} lines in {TRIALS} are of another version and stay as they are"] if foreign else [])


def resumable(sweep: StoredSweep) -> bool:
    """True when it ended before all of its trials were done."""
    return sweep.info.status not in ("running", "finished") and len(sweep.records) < sweep.info.state.total


def front_drawn(sweep: StoredSweep) -> list[str]:
    """The front so far as a plot of letters, if there is any."""
    return ["", *front_picture(pareto_info(sweep), min(columns(sys.stdout) or 80, 100))] if sweep.records else []


def front_text(sweep: StoredSweep) -> list[str]:
    """The front so far as a table, if there is any record."""
    return ["", front_table(pareto_info(sweep), columns(sys.stdout))] if sweep.records else []
