"""What every plot shows of a finished trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.config import TrialConfig, TrialRecord
from core.decompositions import DECOMPOSITIONS

HEADLINE = ("ratio", "criterion", "decomposition")
"""Fields that every picture and table shows on their own."""


@dataclass(frozen=True)
class Point:
    """One finished trial.

    Args:
        key: identity of its configuration.
        x: the fraction left of the original's size, 0 to 1.
        accuracy: top-1, percent.
        ratio: share of channels removed per set.
        criterion: which channels stayed.
        decomposition: what made up for the others.
        settings: everything else that was varied or is not the default, such as ``threshold=0.45``.
        metrics: all that was measured; names and units as in `TrialRecord`.
        config: the full configuration, plain JSON.
        hover: what the interactive plot shows, line by line.
    """

    key: str
    x: float
    accuracy: float
    ratio: float
    criterion: str
    decomposition: str
    settings: str
    metrics: dict[str, float]
    config: dict[str, Any]
    hover: tuple[str, ...]


def make_points(records: Sequence[TrialRecord], x: str) -> tuple[Point, ...]:
    """Return a point for each finished record that has an accuracy and the metric ``x``, in the given order."""
    usable = [r for r in records if r.status == "finished" and x in r.metrics and "accuracy" in r.metrics]
    notable = _notable(r.config for r in usable)
    return tuple(_point(record, x, notable[record.config.decomposition]) for record in usable)


def _point(record: TrialRecord, x: str, notable: set[str]) -> Point:
    config = record.config
    settings = {name: value for name, value in flat(config).items() if name in notable}
    return Point(
        key=record.key,
        x=record.metrics[x],
        accuracy=record.metrics["accuracy"],
        ratio=config.ratio,
        criterion=config.criterion,
        decomposition=config.decomposition,
        settings=" ".join(f"{name}={show(value)}" for name, value in settings.items()),
        metrics=record.metrics,
        config=config.model_dump(mode="json"),
        hover=_hover(record),
    )


def flat(config: TrialConfig) -> dict[str, Any]:
    """Return the options and then the fields of a configuration, in one dict."""
    fields = config.model_dump()
    return {**fields.pop("options"), **fields}


def _notable(configs: Iterable[TrialConfig]) -> dict[str, set[str]]:
    """Per decomposition: the options and fields that differ between its trials, or from the default."""
    seen: dict[str, dict[str, set[str]]] = {}
    for config in configs:
        names = seen.setdefault(config.decomposition, {})
        for name, value in flat(config).items():
            names.setdefault(name, {_default(config.decomposition, name)}).add(repr(value))
    return {
        decomposition: {name for name, values in names.items() if len(values) > 1 and name not in HEADLINE}
        for decomposition, names in seen.items()
    }


def _default(decomposition: str, name: str) -> str:
    plain = TrialConfig(decomposition=decomposition) if decomposition in DECOMPOSITIONS else None
    return repr(flat(plain).get(name)) if plain else ""


def _hover(record: TrialRecord) -> tuple[str, ...]:
    config, metrics = record.config, record.metrics
    left = ", ".join(
        f"{name} {100 * metrics[f'{name}_fraction']:.1f} %"
        for name in ("params", "macs", "bytes", "latency")
        if f"{name}_fraction" in metrics
    )
    drop = f" ({-metrics['accuracy_drop']:+.2f})" if "accuracy_drop" in metrics else ""
    rest = {name: value for name, value in flat(config).items() if name not in HEADLINE and value not in (None, {})}
    return (
        f"{config.decomposition}, {config.criterion}, ratio {config.ratio:g}",
        f"accuracy {metrics['accuracy']:.2f} %{drop}",
        f"left: {left}",
        *(f"{name} = {show(value)}" for name, value in rest.items()),
        f"trial {record.key}",
    )


def show(value: object) -> str:
    """Write a value as a person would: ``true``, ``0.45``, ``a=0.5,b=0.2``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{key}={show(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
