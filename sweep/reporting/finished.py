"""What ``sweep run`` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep.reporting.outcome import lines
from sweep.reporting.progress import duration
from sweep.session import Finished
from sweep.tracking.uri import SERVERS


def as_text(finished: Finished, results: Path) -> list[str]:
    """The front as a table, the plot, the failures, what was not logged, and how to go on."""
    outcome, info = finished.outcome, finished.outcome.sweep.info
    option = "" if results == Path("results") else f" --results {results}"
    took = duration(info.seconds)
    done = f"{len(outcome.sweep.records)} of {info.total} trials"
    out = [f"sweep {info.name!r} {info.status}: {done} in {took}", "", outcome.table, ""]
    if finished.stop.reason:
        out.append(f"ended early: {finished.stop.reason}; 'sweep resume {info.name}{option}' goes on")
    out += lines(outcome.reasons)
    out += not_logged(finished)
    out += [f"plot   {path}" for path in outcome.files if path.suffix in (".png", ".html")]
    out.append(f"trials {outcome.sweep.folder / 'trials.jsonl'}")
    where = info.tracking_uri if info.tracking_uri.startswith(SERVERS) else f"sweep ui{option}"
    return [*out, f"look at every trial:  {where}"]


def not_logged(finished: Finished) -> list[str]:
    """What MLflow did not get, if anything."""
    report = finished.tracking
    if not report.missing and not report.problem:
        return []
    what = f"{report.missing} trials were" if report.missing else "part of the summary was"
    return [f"{what} not logged to MLflow ({report.problem}); everything is in the results folder"]


def as_json(finished: Finished) -> dict[str, Any]:
    """The same as data."""
    outcome, info, report = finished.outcome, finished.outcome.sweep.info, finished.tracking
    return {
        "name": info.name,
        "status": info.status,
        "message": info.message,
        "seconds": round(info.seconds, 2),
        "metrics": outcome.metrics,
        "original": info.original,
        "reasons": outcome.reasons,
        "files": [str(path) for path in outcome.files],
        "mlflow": {"run_id": report.run_id, "logged": report.logged, "missing": report.missing},
        "front": [{"key": p.key, "metrics": dict(p.metrics), "config": dict(p.config)} for p in outcome.info.front],
    }
