"""How a sweep ended (`Finished`), and what ``sweep run`` prints of it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.reporting.failures import failure_lines
from sweep.reporting.outcome import Outcome
from sweep.storage.address import place
from sweep.storage.layout import MODELS, REPORT, TRIALS
from sweep.storage.reader import StoredSweep
from sweep.text import duration
from sweep.tracking import TrackingReport
from sweep.tracking.summary import view_address
from sweep.tracking.uri import SERVERS


@dataclass(frozen=True)
class Finished:
    """How a sweep ended.

    Attributes:
        outcome: the front, its files, the failures.
        tracking: what came of logging to MLflow.
        reason: why the sweep ended early; empty when it did not.
        ended_with: exit code of what ended it: 0 where it was in good order.
        unwritten: networks of the front that are not there -> why.
    """

    outcome: Outcome
    tracking: TrackingReport
    reason: str = ""
    ended_with: int = 0
    unwritten: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, unless the sweep was broken off or no trial gave a result."""
        return self.ended_with or int(not self.outcome.info.points)


def commands(sweep: StoredSweep, results: Path) -> tuple[str, ...]:
    """What takes a network of a sweep, and what goes on with it."""
    return taking(sweep, results), f"sweep resume {sweep.info.name}{place(results)}"


def taking(sweep: StoredSweep, results: Path) -> str:
    """What takes the smallest network within a point, or the whole front where the score has no points."""
    which = "--max-drop 1" if sweep.scored.score.unit == "%" else "--front"
    return f"sweep export {sweep.info.name}{place(results)} {which}"


def as_text(finished: Finished, results: Path) -> list[str]:
    """The front as a table, the plot, the failures, what was not logged, and how to go on."""
    outcome, state = finished.outcome, finished.outcome.sweep.info.state
    name = outcome.sweep.info.name
    option = place(results)
    took = duration(state.seconds)
    done = f"{len(outcome.sweep.records)} of {state.total} trials"
    out = [f"sweep {name!r} {state.status}: {done} in {took}", "", outcome.table, ""]
    if finished.reason:
        out.append(f"ended early: {finished.reason}; 'sweep resume {name}{option}' goes on")
    out += failure_lines(outcome.reasons, f"sweep logs {name}{option}")
    out += not_logged(finished)
    out += [f"plot   {path}" for path in outcome.files if path.suffix in (".png", ".html") and path.name != REPORT]
    out += [f"report {path}" for path in outcome.files if path.name == REPORT]
    out.append(f"trials {outcome.sweep.folder / TRIALS}")
    if models := models_of(finished):
        out.append(f"models {models[0].parent} ({len(models)})")
    out += [f"no network {key}: {reason}" for key, reason in finished.unwritten.items()]
    if outcome.info.front:
        out.append(f"take one:  {taking(outcome.sweep, results)}")
    uri = outcome.sweep.info.request.tracking_uri
    experiment = finished.tracking.experiment_id
    page = f"{uri.rstrip('/')}/{view_address(experiment)}" if experiment else uri
    where = page if uri.startswith(SERVERS) else f"sweep ui{option}"
    return [*out, f"look at every trial:  {where}"]


def not_logged(finished: Finished) -> list[str]:
    """What MLflow did not get, if anything."""
    report = finished.tracking
    if not report.missing and not report.problem:
        return []
    what = f"{report.missing} trials were" if report.missing else "part of the summary was"
    return [f"{what} not logged to MLflow ({report.problem}); everything is in the results folder"]


def models_of(finished: Finished) -> list[Path]:
    """The networks on the front that were written."""
    return sorted((finished.outcome.sweep.folder / MODELS).glob("*.safetensors"))


def as_json(finished: Finished) -> dict[str, Any]:
    """The same as data."""
    outcome, state, report = finished.outcome, finished.outcome.sweep.info.state, finished.tracking
    return {
        "name": outcome.sweep.info.name,
        "status": state.status,
        "message": state.message,
        "seconds": round(state.seconds, 2),
        "metrics": outcome.metrics,
        "original": state.original,
        "reasons": outcome.reasons,
        "files": [str(path) for path in outcome.files],
        "models": [str(path) for path in models_of(finished)],
        "unwritten": dict(finished.unwritten),
        "mlflow": {"run_id": report.run_id, "logged": report.logged, "missing": report.missing},
        "front": [
            {"key": p.key, "split": p.split, "metrics": dict(p.metrics), "config": dict(p.config)}
            for p in outcome.info.front
        ],
    }


def show(finished: Finished, options: Namespace) -> int:
    """Print how the sweep ended, as ``--json`` and ``--results`` want it, and return the exit code."""
    print(json.dumps(as_json(finished), indent=2) if options.json else "\n".join(as_text(finished, options.results)))
    return finished.exit_code
