"""What came of a sweep: the front as files and as a table, and why trials failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.config import TrialRecord
from core.errors import UsageError
from dashboards import (
    PLOTS,
    ParetoInfo,
    front_table,
    get_pareto_info,
    save_plot,
    write_front_csv,
    write_front_json,
)
from sweep.storage.reader import StoredSweep

FORMATS = ("png", "svg", "html", "csv", "json")
AT_THE_END = ("png", "html", "csv", "json")


@dataclass(frozen=True)
class Outcome:
    """A sweep's result.

    Args:
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
        """The front, one line a trial."""
        return front_table(self.info)

    @property
    def metrics(self) -> dict[str, float]:
        """The sweep in numbers."""
        accuracies = [point.accuracy for point in self.info.points]
        best = {"best_accuracy": max(accuracies)} if accuracies else {}
        return {
            "hypervolume": self.info.hypervolume,
            "trials_finished": float(len(accuracies)),
            "trials_failed": float(self.info.failed),
            "front_size": float(len(self.info.front)),
            **best,
        }


def make_outcome(
    sweep: StoredSweep, formats: Sequence[str] = AT_THE_END, folder: Path | None = None, x: str = "params"
) -> Outcome:
    """Find the front of ``sweep`` and write it.

    Args:
        sweep: as read from the store.
        formats: of `FORMATS`; png, svg and html are the plot, csv and json the front.
        folder: where the files go; None: the sweep's own folder.
        x: the size compared: params, macs, bytes or latency.

    Raises:
        UsageError: the sweep has no original network yet (it is still being trained).
    """
    info = pareto_info(sweep, x)
    folder = folder or sweep.folder
    suffix = "" if x == "params" else f"-{x}"
    files = tuple(_write(info, folder, form, suffix) for form in formats)
    return Outcome(sweep, info, files, reasons_of(sweep))


def pareto_info(sweep: StoredSweep, x: str = "params") -> ParetoInfo:
    """What the Pareto plot of ``sweep`` shows."""
    if "accuracy" not in sweep.info.original:
        raise UsageError(f"sweep {sweep.info.name!r} has no trial yet: its original network is still being prepared")
    return get_pareto_info(in_fixed_order(sweep.records), sweep.info.original, x=x, title=sweep.info.name)


def in_fixed_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """By key, so that of trials equal in accuracy and size always the same one is on the front."""
    return sorted(records, key=lambda record: record.key)


def _write(info: ParetoInfo, folder: Path, form: str, suffix: str) -> Path:
    if form == "csv":
        return write_front_csv(info, folder / f"front{suffix}.csv")
    if form == "json":
        return write_front_json(info, folder / f"front{suffix}.json")
    return save_plot(PLOTS.get("pareto"), info, folder / f"pareto{suffix}.{form}")


def reasons_of(sweep: StoredSweep) -> dict[str, int]:
    """Why trials failed -> how many."""
    return dict(Counter(record.reason for record in sweep.records if record.status == "failed").most_common())


def lines(reasons: dict[str, int], most: int = 5) -> Iterable[str]:
    """The most frequent reasons, a line each."""
    for reason, count in list(reasons.items())[:most]:
        yield f"{count} failed: {reason}"
    if len(reasons) > most:
        yield f"and {len(reasons) - most} other reasons; see trials.jsonl"
