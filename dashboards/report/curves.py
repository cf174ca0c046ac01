"""What the smaller plots of a report show: fronts, the best per ratio and threshold, the hypervolume over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.metrics import METRICS, Metric
from core.pareto import hypervolume, pareto_front
from core.records import TrialRecord
from dashboards.report.answers import NOUNS

MOST_VALUES = 25
"""With more different values than this, they are put into bins of `BIN`."""
BIN = 0.05
MOST_LINES = 10


@dataclass(frozen=True)
class Curve:
    """The best score for each value of a parameter.

    Attributes:
        panel: which of several plots side by side.
        line: which line in it.
        points: (value, score, place of the trial), by increasing value.
    """

    panel: str
    line: str
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Front:
    """Those of a group that no other of it dominates.

    Attributes:
        group: its place among the groups; -1: all trials together.
        places: of the trials, the smallest first.
        hypervolume: of it, for sizes at most the original's and accuracies from 0, or other scores from their least.
    """

    group: int
    places: tuple[int, ...]
    hypervolume: float


def make_fronts(
    records: Sequence[TrialRecord], group: Sequence[int], score: str = "accuracy", least: float = 0.0
) -> dict[str, tuple[Front, ...]]:
    """Size on the x axis -> the front of all, and of each group; hypervolumes begin at the ``least`` of the score."""
    place = {id(record): i for i, record in enumerate(records)}
    groups = {number: [r for r, g in zip(records, group, strict=True) if g == number] for number in sorted(set(group))}
    return {
        x: tuple(
            Front(
                number,
                tuple(place[id(r)] for r in pareto_front(of, x, score)),
                round(hypervolume(of, x, score, (1.0, least)), 3),
            )
            for number, of in {-1: records, **groups}.items()
        )
        for x in NOUNS
        if any(x in record.metrics for record in records)
    }


def by_ratio(records: Sequence[TrialRecord], score: Metric = METRICS["accuracy"]) -> tuple[tuple[Curve, ...], str]:
    """The best accuracy per ratio, criterion and decomposition, and what is left out.

    # NOTE: the ratio of a budget is of the whole network's size and that of the others is of each channel set: they
    # are not compared here.
    """
    plain = [
        i for i, r in enumerate(records) if math.isfinite(r.ratio) and _allocation(r) not in ("budget", "per-site")
    ]
    curves, binned = _best(records, plain, lambda r: r.ratio, lambda r: r.criterion, lambda r: r.decomposition, score)
    notes = ["The best of everything else at each ratio."]
    notes += [f"Ratios are in bins of {BIN:g}."] * binned
    if missing := len(records) - len(plain):
        notes.append(f"{missing} trials are left out: their ratio is of the whole network or differs between layers.")
    return curves, " ".join(notes)


def by_threshold(records: Sequence[TrialRecord], score: Metric = METRICS["accuracy"]) -> tuple[tuple[Curve, ...], str]:
    """The best accuracy per threshold, a line for each ratio; nothing where the threshold was not varied."""
    some = [i for i, r in enumerate(records) if _number(r.options.get("threshold")) and math.isfinite(r.ratio)]
    if len({records[i].options["threshold"] for i in some}) < 2:
        return (), ""
    many = len({records[i].ratio for i in some}) > MOST_LINES
    near = (lambda r: f"{r.ratio:.1f}") if many else (lambda r: f"{r.ratio:g}")
    curves, _ = _best(records, some, lambda r: float(r.options["threshold"]), lambda r: r.decomposition, near, score)
    curves = tuple(sorted(curves, key=lambda curve: (curve.panel, float(curve.line))))
    return curves, "The best of everything else, a line for each ratio" + (", to the nearest tenth." if many else ".")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _allocation(record: TrialRecord) -> str:
    return str(record.config.get("allocation", "uniform"))


def _best(
    records: Sequence[TrialRecord],
    places: Sequence[int],
    value: Callable[[TrialRecord], float],
    panel: Callable[[TrialRecord], str],
    line: Callable[[TrialRecord], str],
    score: Metric,
) -> tuple[tuple[Curve, ...], bool]:
    def value_of(i: int) -> float:
        return records[i].metrics[score.name]

    binned = len({value(records[i]) for i in places}) > MOST_VALUES
    best: dict[tuple[str, str], dict[float, int]] = {}
    for i in places:
        at = round(round(value(records[i]) / BIN) * BIN, 10) if binned else value(records[i])
        found = best.setdefault((panel(records[i]), line(records[i])), {})
        if at not in found or score.loss(value_of(i)) < score.loss(value_of(found[at])):
            found[at] = i
    curves = (
        Curve(*names, tuple((at, float(f"{value_of(i):.6g}"), i) for at, i in sorted(found.items())))
        for names, found in sorted(best.items())
    )
    return tuple(curves), binned


def history(
    records: Sequence[TrialRecord],
    x: str = "params_fraction",
    score: Metric = METRICS["accuracy"],
    least: float = 0.0,
) -> tuple[tuple[int, float], ...]:
    """(trials so far, hypervolume of their front) wherever it changed, and at the end; ``records`` as they ended."""
    front: list[TrialRecord] = []
    found: list[tuple[int, float]] = []
    for count, record in enumerate(records, 1):
        if record.status != "finished" or any(_beats(other, record, x, score) for other in front):
            continue
        front = pareto_front([*front, record], x, score.name)
        found.append((count, round(hypervolume(front, x, score.name, (1.0, least)), 3)))
    if found and found[-1][0] < len(records):
        found.append((len(records), found[-1][1]))
    return tuple(found)


def _beats(one: TrialRecord, other: TrialRecord, x: str, score: Metric) -> bool:
    """Whether ``one`` is at least as good in both."""
    better = score.loss(one.metrics[score.name]) <= score.loss(other.metrics[score.name])
    return better and one.metrics[x] <= other.metrics[x]
