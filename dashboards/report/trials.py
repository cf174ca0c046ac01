"""The finished trials as columns, which is how the page holds thousands of them in little room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.metrics import METRICS, OURS, TEST, metric_named
from core.records import TrialRecord
from dashboards.report.fields import Field, make_fields

Number = int | float | None
DETAIL_BYTES = 1_500_000
"""Room for layer widths and notes; the trials on the fronts get theirs first."""


@dataclass(frozen=True)
class Detail:
    """What happened inside one trial.

    Attributes:
        widths: (place of the channel set in `Trials.sites`, channels kept).
        notes: what was decided on the way, in words.
    """

    widths: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trials:
    """Finished trials, in a fixed order.

    Attributes:
        keys: of the configurations.
        group: per trial the place of what it is coloured by: its decomposition, or its sweep.
        metrics: name -> value per trial, six digits; None where it was not measured.
        fields: the configurations.
        sites: (name, channels of the original) of every channel set.
        details: per trial, None where there was no room.
    """

    keys: tuple[str, ...]
    group: tuple[int, ...]
    metrics: dict[str, tuple[Number, ...]]
    fields: tuple[Field, ...]
    sites: tuple[tuple[str, int], ...]
    details: tuple[Detail | None, ...]


def make_trials(
    records: Sequence[TrialRecord],
    group: Sequence[int],
    first: Sequence[int] = (),
    sweeps: Sequence[str] = (),
) -> Trials:
    """Put finished records into columns.

    Args:
        records: with an accuracy, all of them.
        group: see `Trials`.
        first: places in ``records`` of those whose details matter most.
        sweeps: name of the sweep that each is from, where there are several.
    """
    present = {name for record in records for name in record.metrics}
    names = [name for name in _metric_names() if name in present]
    sites, details = _details(records, first)
    return Trials(
        keys=tuple(record.key for record in records),
        group=tuple(group),
        metrics={name: tuple(rounded(record.metrics.get(name)) for record in records) for name in names},
        fields=make_fields(records, {"sweep": sweeps} if sweeps else None),
        sites=sites,
        details=details,
    )


def _metric_names() -> Iterator[str]:
    for name in METRICS:
        yield name
        if name in ("accuracy", "loss") or name not in OURS:
            yield TEST + name


def rounded(value: float | None) -> Number:
    """Six digits of ``value``; a whole number as it is."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.6g}")


def metric_cards(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the page must know of each metric to write it: label, unit, factor, digits behind the point (or none)."""
    found = {}
    for metric in map(metric_named, names):
        digits = {"{:.1f}": 1, "{:.2f}": 2, "{:.3f}": 3, "{:.4f}": 4, "{:,.0f}": 0}.get(metric.form)
        card = {"label": metric.label, "unit": metric.unit, "scale": metric.scale, "digits": digits}
        found[metric.name] = card
    return found


def _details(
    records: Sequence[TrialRecord], first: Sequence[int]
) -> tuple[tuple[tuple[str, int], ...], tuple[Detail | None, ...]]:
    sites: dict[tuple[str, int], int] = {}
    found: list[Detail | None] = [None] * len(records)
    room = DETAIL_BYTES
    for place in dict.fromkeys([*first, *range(len(records))]):
        detail = _detail(records[place], sites)
        room -= 8 * len(detail.widths) + sum(map(len, detail.notes)) + 20
        if room < 0:
            break
        found[place] = detail
    return tuple(sites), tuple(found)


def _detail(record: TrialRecord, sites: dict[tuple[str, int], int]) -> Detail:
    widths = []
    for site in record.sites:
        size, kept = site.get("size"), site.get("kept")
        count = len(kept) if isinstance(kept, list) else kept
        if isinstance(size, int) and isinstance(count, int):
            widths.append((sites.setdefault((str(site.get("name", "?")), size), len(sites)), count))
    return Detail(tuple(widths), tuple(record.notes))
