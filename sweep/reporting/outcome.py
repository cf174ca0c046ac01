"""What came of a sweep: the front as files and as a table, and why trials failed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.records import TrialRecord
from dashboards import ParetoInfo, front_table, get_pareto_info, write_front_csv, write_front_json
from sweep.storage.layout import FRONTS
from sweep.storage.reader import StoredSweep
from sweep.text import columns

FORMATS = ("png", "svg", "html", "csv", "json")
AT_THE_END = ("png", "html", "csv", "json")
PARETO = "pareto"


@dataclass(frozen=True)
class Outcome:
    """A sweep's result.

    Attributes:
        sweep: as it is on disk.
        info: everything the Pareto plot shows.
        files: that were written.
        reasons: why trials failed -> how many, the most frequent first.
    """

    sweep: StoredSweep
    info: ParetoInfo
    files: tuple[Path, ...]
    reasons: dict[str, int]

    @property
    def table(self) -> str:
        """The front, one line a trial, as wide as the terminal."""
        return front_table(self.info, columns(sys.stdout))

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """Its trials, the most accurate first, of equal ones the smallest."""
        records = {record.key: record for record in self.sweep.records}
        found = [records[point.key] for point in self.info.front]
        score = self.sweep.scored.score
        return tuple(
            sorted(found, key=lambda r: (score.loss(r.metrics[score.name]), r.metrics.get("params_fraction", 1.0)))
        )

    @property
    def metrics(self) -> dict[str, float]:
        """The sweep in numbers, and those of its most accurate trial."""
        score = self.sweep.scored.score
        scores = [point.metrics[score.name] for point in self.info.points]
        best = {f"best_{score.name}": min(scores, key=score.loss)} if scores else {}
        area = {} if self.info.hypervolume is None else {"hypervolume": self.info.hypervolume}
        of_best = dict(self.front[0].metrics) if self.front else {}
        return {
            **of_best,
            **area,
            "trials_finished": float(len(scores)),
            "trials_failed": float(self.info.failed),
            "front_size": float(len(self.info.front)),
            **best,
        }


def make_outcome(
    sweep: StoredSweep,
    formats: Sequence[str] = AT_THE_END,
    folder: Path | None = None,
    x: str = "params",
    y: str = "",
    plot: str = PARETO,
    dpi: int = 150,
) -> Outcome:
    """Find the front of ``sweep`` and write it.

    Args:
        sweep: as read from the store.
        formats: of `FORMATS`; png, svg and html are the plot, csv and json the front.
        folder: where the files go; None: the sweep's own folder.
        x: what is compared: params, macs, bytes, latency or any metric.
        y: with what; empty: what the sweep is scored by.
        plot: which of `dashboards.PLOTS`.
        dpi: dots per inch of a PNG.

    Raises:
        UsageError: the sweep has no original network yet (it is still being trained), or a name is not known.
        NeuronMergingError: a file cannot be written.
    """
    info = pareto_info(sweep, x, y)
    folder = folder or sweep.folder
    suffix = suffix_of(x, y, sweep.scored.score.name)
    files = tuple(_write(sweep, info, folder, form, suffix, plot, dpi) for form in formats)
    return Outcome(sweep, info, files, reasons_of(sweep))


def write_fronts(
    sweeps: Sequence[StoredSweep], formats: Sequence[str], folder: Path, x: str, y: str, dpi: int = 150
) -> tuple[Path, ...]:
    """Write the fronts of several sweeps as one picture, and all their trials as one table.

    Raises:
        UsageError: a sweep has no original network yet, or a name is not known.
        NeuronMergingError: a file cannot be written.
    """
    from dashboards import save_fronts, write_fronts_json, write_trials_csv

    require_alike(sweeps)
    infos = {sweep.info.name: pareto_info(sweep, x, y) for sweep in sweeps}
    files = []
    for form in formats:
        path = folder / f"{FRONTS}{suffix_of(x, y, sweeps[0].scored.score.name)}.{form}"
        if form == "csv":
            files.append(write_trials_csv(infos, {s.info.name: s.records for s in sweeps}, path))
        elif form == "json":
            files.append(write_fronts_json(infos, path))
        else:
            files.append(save_fronts(list(infos.values()), path, dpi))
    return tuple(files)


def suffix_of(x: str, y: str, score: str = "accuracy") -> str:
    """What tells the files of unusual axes from the usual ones."""
    return "".join(f"-{name}" for name, usual in ((x, ("params",)), (y, ("", score))) if name not in usual)


def require_alike(sweeps: Sequence[StoredSweep]) -> None:
    """Look whether the accuracies of several sweeps mean the same.

    Raises:
        UsageError: they do not.
    """
    words = {sweep.info.name: sweep.scored.label for sweep in sweeps}
    if len(set(words.values())) > 1:
        said = ", ".join(f"{name}: {label}" for name, label in words.items())
        raise UsageError(f"these sweeps are scored differently and cannot be compared ({said}); name those of one kind")


def pareto_info(sweep: StoredSweep, x: str = "params", y: str = "") -> ParetoInfo:
    """What the Pareto plot of ``sweep`` shows.

    Raises:
        UsageError: the sweep has no original network yet, or a name is not known.
    """
    found, name = in_fixed_order(sweep.records), sweep.info.name
    return get_pareto_info(found, _original(sweep), x=x, y=y, title=name, scored=sweep.scored)


def _original(sweep: StoredSweep) -> dict[str, float]:
    if sweep.scored.score.name not in sweep.info.state.original:
        raise UsageError(f"sweep {sweep.info.name!r} has no trial yet: its original network is still being prepared")
    return sweep.info.state.original


def in_fixed_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """By key, so that of trials equal in accuracy and size always the same one is on the front."""
    return sorted(records, key=lambda record: record.key)


def _write(sweep: StoredSweep, info: ParetoInfo, folder: Path, form: str, suffix: str, plot: str, dpi: int) -> Path:
    if form == "csv":
        return write_front_csv(info, folder / f"front{suffix}.csv")
    if form == "json":
        return write_front_json(info, folder / f"front{suffix}.json")
    from dashboards import PLOTS, save_plot  # they draw, which takes a second to load

    chosen = PLOTS.get(plot)
    shown = info if plot == PARETO else _info_of(chosen, sweep, info)
    return save_plot(chosen, shown, folder / f"{plot}{suffix}.{form}", dpi)


def _info_of(plot: Any, sweep: StoredSweep, info: ParetoInfo) -> Any:
    records, title = in_fixed_order(sweep.records), sweep.info.name
    return plot.get_info(records, _original(sweep), x=info.x, y=info.y_metric.name, title=title, scored=sweep.scored)


def reasons_of(sweep: StoredSweep) -> dict[str, int]:
    """Why trials failed, or could not be evaluated on the test split -> how many."""
    failed = [record.reason for record in sweep.records if record.status == "failed"]
    untested = [f"on the test split: {reason}" for reason in sweep.tested.values() if reason]
    return dict(Counter([*failed, *untested]).most_common())
