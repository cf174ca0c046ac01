"""What every plot shows of a finished trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from core.config import TrialConfig, counting
from core.decompositions import DECOMPOSITIONS
from core.evaluators import USUAL, Evaluator
from core.metrics import METRICS, SIZES, TEST, any_metric, drop_of, fraction_of
from core.records import TrialRecord

HEADLINE = ("ratio", "criterion", "decomposition")
"""Fields that every picture and table shows on their own."""


@dataclass(frozen=True)
class Point:
    """One finished trial.

    Attributes:
        key: identity of its configuration.
        x: its value on the x axis, such as the fraction left of the original's size.
        y: its value on the y axis.
        ratio: share of channels removed per set; NaN with a target.
        criterion: which channels stayed.
        decomposition: what made up for the others.
        settings: everything else that was varied or is not the default, such as ``threshold=0.45``.
        metrics: all that was measured; names and units as in `core.metrics`.
        config: the full configuration, plain JSON.
        split: what it was evaluated on.
        hover: what the interactive plot shows, line by line.
    """

    key: str
    x: float
    y: float
    ratio: float
    criterion: str
    decomposition: str
    settings: str
    metrics: dict[str, float]
    config: dict[str, Any]
    split: str
    hover: tuple[str, ...]


def make_points(
    records: Sequence[TrialRecord], x: str, y: str = "accuracy", scored: Evaluator = USUAL
) -> tuple[Point, ...]:
    """Return a point for each finished record that has a score and both metrics, in the given order."""
    usable = [r for r in records if r.status == "finished" and {x, y, scored.score.name} <= r.metrics.keys()]
    notable = _notable(usable)
    return tuple(_point(record, x, y, notable[record.decomposition], scored) for record in usable)


def _point(record: TrialRecord, x: str, y: str, notable: set[str], scored: Evaluator) -> Point:
    settings = {name: value for name, value in flat(record).items() if name in notable and value is not None}
    return Point(
        key=record.key,
        x=record.metrics[x],
        y=record.metrics[y],
        ratio=record.ratio,
        criterion=record.criterion,
        decomposition=record.decomposition,
        settings=" ".join(f"{name}={written(value)}" for name, value in settings.items()),
        metrics=record.metrics,
        config=record.config,
        split=record.split,
        hover=_hover(record, scored),
    )


def flat(record: TrialRecord) -> dict[str, Any]:
    """Return the options and then the fields of a configuration, in one dict."""
    fields = {name: value for name, value in record.config.items() if name != "options"}
    return {**record.options, **counting(fields)}


def _notable(records: Iterable[TrialRecord]) -> dict[str, set[str]]:
    """Per decomposition: the options and fields that differ between its trials, or from the default."""
    seen: dict[str, dict[str, set[str]]] = {}
    for record in records:
        names = seen.setdefault(record.decomposition, {})
        for name, value in flat(record).items():
            default = repr(_defaults(record.decomposition).get(name))
            names.setdefault(name, {default}).add(repr(value))
    return {
        decomposition: {name for name, values in names.items() if len(values) > 1 and name not in HEADLINE}
        for decomposition, names in seen.items()
    }


@cache
def _defaults(decomposition: str) -> Mapping[str, Any]:
    """What a configuration says where nothing is set; nothing for a decomposition that is not known (any more)."""
    if decomposition not in DECOMPOSITIONS:
        return {}
    values = TrialConfig(decomposition=decomposition).as_json()
    return {**values.pop("options"), **values}


def _hover(record: TrialRecord, scored: Evaluator) -> tuple[str, ...]:
    metrics, score = record.metrics, scored.score
    left = ", ".join(
        f"{size.removesuffix('_ms')} {METRICS[name].show(metrics[name])} %"
        for size in SIZES
        if (name := fraction_of(size)) in metrics
    )
    lost = metrics.get(drop_of(score.name))
    form = "+.2f" if score.unit == "%" else "+.4g"
    change = None if lost is None else lost if score.better == "min" else -lost
    drop = "" if change is None else f" ({change:{form}})"
    tested = [
        f"{name.replace('_', ' ')} {metric.show(metrics[name])} {metric.unit}"
        for name in sorted(metrics)
        if name.startswith(TEST) and (metric := any_metric(name))
    ]
    split = f" on {record.split}" if record.split != "test" else ""
    rest = {name: value for name, value in flat(record).items() if name not in HEADLINE and value not in (None, {})}
    return (
        f"{record.decomposition}, {record.criterion}" + (f", ratio {record.ratio:g}" if record.ratio >= 0 else ""),
        f"{scored.word} {scored.show(metrics)}{split}{drop}",
        *tested,
        f"left: {left}",
        *(f"{name} = {written(value)}" for name, value in rest.items()),
        f"trial {record.key}",
    )


def written(value: object) -> str:
    """Write a value as a person would: ``true``, ``0.45``, ``a=0.5,b=0.2``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={written(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
