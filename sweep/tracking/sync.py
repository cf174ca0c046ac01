"""MLflow rebuilt from the results store, which is the truth."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.errors import UsageError
from sweep.errors import StoreError
from sweep.reporting.finished import commands
from sweep.reporting.outcome import make_outcome
from sweep.reporting.report import write_report
from sweep.storage.address import place
from sweep.storage.layout import INFO, REPORT
from sweep.storage.reader import StoredSweep, read_sweep
from sweep.tracking import Tracker, TrackingReport, check_tracking
from sweep.tracking.summary import Ending, Front
from sweep.tracking.uri import artifacts_of, uri_of
from sweep.tracking.view import RUN_STATUS, DatasetCard


def sync(results: Path, name: str, tracking_uri: str | None = None) -> TrackingReport:
    """Write every trial of a sweep that MLflow lacks, and its summary.

    Args:
        results: folder of all sweeps.
        name: of the sweep.
        tracking_uri: where to; None: where the sweep logs.

    Raises:
        UsageError: the sweep runs, and writes by itself; or it has no trial.
        TrackingError: no server answers.
    """
    sweep = read_sweep(results, name)
    if sweep.info.status == "running":
        raise UsageError(
            f"sweep {name!r} is running and writes to MLflow by itself; wait, or end it with"
            f" 'sweep stop {name}{place(results)}'"
        )
    uri = target(sweep, results, tracking_uri)
    check_tracking(uri)
    outcome, report = make_outcome(sweep), write_report([sweep], sweep.folder / REPORT)
    tracker = Tracker(uri, artifacts_of(uri, results), sweep.info, card_of(sweep))
    for record in sweep.records:
        tracker.put(record)
    front = Front(outcome.front, commands(sweep, results))
    status = RUN_STATUS[sweep.info.status]
    return tracker.finish(Ending(status, outcome.metrics, (*outcome.files, report), front, sweep.info))


def target(sweep: StoredSweep, results: Path, tracking_uri: str | None) -> str:
    """The address that a sweep is written to.

    Raises:
        UsageError: none was given, and the sweep's own was kept without its password.
    """
    return tracking_uri or uri_of(sweep.info.request.tracking_uri, results)


def card_of(sweep: StoredSweep) -> DatasetCard:
    """What the trials of ``sweep`` were evaluated on.

    Raises:
        StoreError: its info does not say.
    """
    try:
        return TypeAdapter(DatasetCard).validate_python(sweep.info.state.dataset)
    except ValidationError:
        raise StoreError(
            f"{sweep.folder / INFO}: 'dataset' does not say what trials were evaluated on; restore it from a copy"
        ) from None
