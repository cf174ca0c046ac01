"""The front as text: a table for the terminal, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.config import TrialConfig
from core.files import writing
from core.metrics import METRICS, OURS, TEST, Metric, fraction_of
from core.records import TrialRecord
from dashboards.pareto_info import ParetoInfo
from dashboards.points import Point, written

WORDS = frozenset({"criterion", "decomposition", "options", "key"})
"""Columns that are aligned to the left."""
SHORT_HEADS = {
    "accuracy %": "acc %",
    "params left %": "params %",
    "MACs left %": "MACs %",
    "bytes left %": "bytes %",
}
DISPENSABLE = ("MACs %", "options", "bytes %", "ratio", "test %", "criterion")
"""What a narrow terminal does without, in this order."""
KEY_DIGITS = 8
"""Of a key, where there is little room; every verb takes so much for the whole."""


def front_table(info: ParetoInfo, width: int | None = None) -> str:
    """Return the front as a plain table, the most accurate network first; one line when there is no front.

    Args:
        info: what the plot shows.
        width: of the terminal; heads and keys are shortened, and the least needed columns left out, until the table
            fits, if it can. None: as wide as it is.
    """
    if not info.front:
        return info.subtitle
    columns = _columns(info)
    heads = ("rank", *columns, "criterion", "decomposition", "ratio", "options", "key")
    shown = list(columns.values())
    rows = [_row(rank, point, shown) for rank, point in enumerate(reversed(info.front), 1)]
    table: dict[str, Sequence[str]] = dict(zip(heads, zip(*rows, strict=True), strict=True))
    if not any(table["options"]):
        del table["options"]
    if width is not None and _width(table) > width:
        unit = f" {info.scored.score.unit}".rstrip()
        shorter = {**SHORT_HEADS, f"test {info.word}{unit}": f"test{unit}"}
        table = {shorter.get(head, head): cells for head, cells in table.items()}
        table["key"] = _short_keys(table["key"])
        table = _fitted(table, width)
    return "\n".join(_lines(table))


def _fitted(table: Mapping[str, Sequence[str]], width: int) -> dict[str, Sequence[str]]:
    """The table without as few of the `DISPENSABLE` columns as make it fit, if that can be."""
    kept, dropped = dict(table), list[str]()
    for head in DISPENSABLE:
        if head in kept and _width(kept) > width:
            del kept[head]
            dropped.append(head)
    for head in reversed(dropped):  # a wide one that went later may have made room for a narrow one
        more = {known: cells for known, cells in table.items() if known in kept or known == head}
        if _width(more) <= width:
            kept = more
    return kept


def _lines(table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The table's lines: heads, rules, rows."""
    rows = [tuple(table), tuple("-" * _widest(head, cells) for head, cells in table.items())]
    for row in [*rows, *zip(*table.values(), strict=True)]:
        cells = zip(row, table.items(), strict=True)
        yield "  ".join(
            text.ljust(_widest(head, own)) if head in WORDS else text.rjust(_widest(head, own))
            for text, (head, own) in cells
        ).rstrip()


def _widest(head: str, cells: Sequence[str]) -> int:
    return max(len(head), *map(len, cells))


def _width(table: Mapping[str, Sequence[str]]) -> int:
    return sum(_widest(head, cells) + 2 for head, cells in table.items()) - 2


def _short_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The first digits of keys, as many as tell them apart."""
    digits = next(n for n in range(KEY_DIGITS, 17) if len({key[:n] for key in keys}) == len(set(keys)))
    return tuple(key[:digits] for key in keys)


def _columns(info: ParetoInfo) -> dict[str, Metric]:
    """The metrics that the table shows, by the heads of their columns."""
    score = info.scored.score
    tested, head = replace(score, name=f"{TEST}{score.name}"), f"{info.word} {score.unit}".rstrip()
    columns = {head: score}
    if any(tested.name in point.metrics for point in info.front):
        columns[f"test {head}"] = tested
    for size in ("params", "macs"):
        columns[_head(METRICS[fraction_of(size)])] = METRICS[fraction_of(size)]
    for metric in (info.x_metric, info.y_metric):
        if metric.name not in {known.name for known in columns.values()}:
            columns[_head(metric)] = metric
    return columns


def _head(metric: Metric) -> str:
    size = metric.name.removesuffix("_fraction")
    if size != metric.name:
        return f"{'MACs' if size == 'macs' else size.replace('_', ' ')} left %"
    return f"{metric.name.replace('_', ' ')} {metric.unit}".rstrip()


def _row(rank: int, point: Point, metrics: Sequence[Metric]) -> tuple[str, ...]:
    return (
        str(rank),
        *(metric.show(point.metrics[metric.name]) if metric.name in point.metrics else "-" for metric in metrics),
        point.criterion,
        point.decomposition,
        f"{point.ratio:.3g}" if math.isfinite(point.ratio) else "-",
        point.settings,
        point.key,
    )


def write_front_csv(info: ParetoInfo, path: str | Path) -> Path:
    """Write the front, the most accurate network first: rank, key, every metric, every field of the configuration.

    Metrics have the names and units of `TrialRecord`; fields that hold several values are JSON.
    """
    points = info.front[::-1]
    metrics = sorted({name for point in points for name in point.metrics})
    fields = sorted({name for point in points for name in point.config})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["rank", "key", *metrics, *fields])
    for rank, point in enumerate(points, 1):
        measured = [point.metrics.get(name, "") for name in metrics]
        table.writerow([rank, point.key, *measured, *(_cell(point.config.get(name)) for name in fields)])
    return _write(path, text.getvalue())


TRIAL_COLUMNS = (
    *("sweep", "rank", "key", "status", "split", "reason", "seconds", "images"),
    *(name for name in METRICS if name in OURS),
    *(f"{TEST}{name}" for name in ("accuracy", "loss")),
    *TrialConfig.model_fields,
)
"""Columns of `write_trials_csv`, whatever the trials are; new ones come at the end of their group."""


def write_trials_csv(
    sweeps: Mapping[str, ParetoInfo], records: Mapping[str, Sequence[TrialRecord]], path: Path
) -> Path:
    """Write every trial of some sweeps, in the order of their records, with the columns `TRIAL_COLUMNS`, and more.

    ``rank`` is the place on the sweep's own front from 1, and 0 elsewhere; metrics have the names and units of
    `core.metrics`; fields that hold several values are JSON; what a trial has not is empty. Behind those columns stand
    the metrics that only some evaluators give, sorted.

    Raises:
        UsageError: the file cannot be written.
    """
    text = io.StringIO()
    columns = (*TRIAL_COLUMNS, *_own_columns(records))
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for name, found in records.items():
        ranks = {point.key: rank for rank, point in enumerate(reversed(sweeps[name].front), 1)}
        for record in found:
            own = {field: getattr(record, field) for field in ("key", "status", "split", "reason", "seconds", "images")}
            values = {**record.config, **record.metrics, **own, "sweep": name, "rank": ranks.get(record.key, 0)}
            table.writerow({column: _exact(values.get(column)) for column in columns})
    return _write(path, text.getvalue())


def _own_columns(records: Mapping[str, Sequence[TrialRecord]]) -> list[str]:
    """What an evaluator of the user's gave, or another that measures networks as a whole."""
    return sorted({name for found in records.values() for r in found for name in r.metrics} - set(TRIAL_COLUMNS))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else written(value)


def _exact(value: Any) -> str:
    """A value of a record in one cell, every digit of it; whole numbers without a point."""
    if isinstance(value, float) and not isinstance(value, bool):
        return str(int(value)) if value.is_integer() else repr(value)
    return _cell(value)


def write_front_json(info: ParetoInfo, path: str | Path) -> Path:
    """Write the front, the most accurate network first, with what it was measured against."""
    return _write(path, json.dumps(_document(info), indent=2) + "\n")


def write_fronts_json(infos: Mapping[str, ParetoInfo], path: str | Path) -> Path:
    """Write the fronts of several sweeps, sweep name -> what `write_front_json` writes."""
    return _write(path, json.dumps({name: _document(info) for name, info in infos.items()}, indent=2) + "\n")


def _document(info: ParetoInfo) -> dict[str, Any]:
    return {
        "title": info.title,
        "x": info.x_metric.name,
        "y": info.y_metric.name,
        "hypervolume": info.hypervolume,
        "original_accuracy": info.original_accuracy,
        "failed": info.failed,
        "stopped": info.stopped,
        "front": [
            {"key": p.key, "split": p.split, "metrics": p.metrics, "config": p.config} for p in reversed(info.front)
        ],
    }


def _write(path: str | Path, text: str) -> Path:
    with writing(Path(path)) as temporary:
        temporary.write_bytes(text.encode())
    return Path(path)
