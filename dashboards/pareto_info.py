"""The data behind the Pareto plot, the front's table and its files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.evaluators import USUAL, Evaluator
from core.metrics import Metric, axis_named, drop_of
from core.pareto import hypervolume, pareto_front, smallest
from core.records import TrialRecord
from dashboards.noise import latency_noise, noise_in_words
from dashboards.points import Point, make_points

IDLE = "idle_latency_fraction"
NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""
DROPS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""For each of these, the smallest network that loses at most so many points of accuracy is labelled."""


@dataclass(frozen=True)
class ParetoInfo:
    """All that the Pareto plot shows.

    Attributes:
        title: first line.
        subtitle: counts and hypervolume, in words.
        x: what is compared, as it was asked for: params, macs, bytes, latency or any metric.
        x_metric: that of the x axis.
        y_metric: that of the y axis.
        points: every finished trial, in the records' order.
        front: those that no other dominates, the best in x first.
        labelled: those of the front that get a label, with its text.
        original: (x, y) of the uncompressed network.
        original_accuracy: the score of the uncompressed network.
        hypervolume: area that the front dominates (fraction × percent: at most 100); None where it has no corner.
        failed: number of trials that gave no result.
        stopped: number of trials that a race stopped early; they have no accuracy, and nothing here shows them.
        left_out: number of finished trials without the metrics on the axes.
        noise: relative standard deviation of a latency on the x axis (see `latency_noise`); NaN where it is not known.
        scored: what trials are scored by.
    """

    title: str
    subtitle: str
    x: str
    x_metric: Metric
    y_metric: Metric
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    labelled: tuple[tuple[Point, str], ...]
    original: tuple[float, float]
    original_accuracy: float
    hypervolume: float | None
    failed: int
    stopped: int
    left_out: int
    noise: float = math.nan
    scored: Evaluator = USUAL

    @property
    def word(self) -> str:
        """What the score is called in a table's head."""
        return self.scored.word

    @property
    def x_label(self) -> str:
        """Of the axis, with its unit, and how noisy a latency is."""
        words = f"±{100 * self.noise:.2g} %" if self.x_metric.name == IDLE else noise_in_words(self.noise)
        noisy = f"; {words}" if self.by_latency and self.points else ""
        return f"{self.x_metric.title}{noisy}"

    @property
    def by_latency(self) -> bool:
        """Whether the x axis is a time that was measured."""
        return "latency" in self.x_metric.name

    @property
    def y_label(self) -> str:
        """Of the axis, with its unit."""
        return self.y_metric.title

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Values of the two metrics in the units of the axes."""
        return x * self.x_metric.scale, y * self.y_metric.scale

    @property
    def original_place(self) -> tuple[float, float]:
        """The uncompressed network in the units of the axes."""
        return self.place(*self.original)


def get_pareto_info(
    records: Sequence[TrialRecord],
    original: Mapping[str, float],
    *,
    x: str = "params",
    y: str = "",
    title: str = "Pareto front",
    scored: Evaluator = USUAL,
) -> ParetoInfo:
    """Gather what the Pareto plot shows.

    Args:
        records: of the sweep.
        original: metrics of the uncompressed network.
        x: of the plot.
        y: of the plot; empty: the score.
        title: of the plot.
        scored: what the trials were scored by.

    Raises:
        UnknownNameError: ``x`` or ``y`` is none of params, macs, bytes, latency, and no metric.
    """
    score = scored.score.name
    alone = x == "latency" and any(IDLE in record.metrics for record in records)
    x_metric = axis_named("idle_latency" if alone else x, "x axis")
    y_metric = scored.named(axis_named(y or score, "y axis"))
    points = make_points(records, x_metric.name, y_metric.name, scored)
    front = tuple(pareto_front(points, x_metric.name, y_metric.name))
    failed, stopped = (sum(record.status == status for record in records) for status in ("failed", "stopped"))
    left_out = len(records) - failed - stopped - len(points)
    volume = _volume(points, x_metric, y_metric)
    return ParetoInfo(
        title=title,
        subtitle=_subtitle(x_metric, len(records), failed, stopped, left_out, len(front), volume),
        x=x,
        x_metric=x_metric,
        y_metric=y_metric,
        points=points,
        front=front,
        labelled=labelled_of(front, x_metric, y_metric, original[score] if y_metric.name == score else None),
        original=(_of_original(x_metric, original), _of_original(y_metric, original)),
        original_accuracy=original[score],
        hypervolume=volume,
        failed=failed,
        stopped=stopped,
        left_out=left_out,
        noise=_noise(x_metric, points),
        scored=scored,
    )


def _noise(x: Metric, points: Sequence[Point]) -> float:
    """The relative standard deviation of a latency; of one that was measured alone, from its quartiles."""
    if x.name == IDLE:
        spreads = [point.metrics["idle_latency_spread"] for point in points if "idle_latency_spread" in point.metrics]
        return statistics.median(spreads) / NORMAL_IQR if spreads else math.nan
    return latency_noise(points) if x.name.startswith("latency") else math.nan


def _of_original(metric: Metric, original: Mapping[str, float]) -> float:
    """The original network's own value; of a fraction it is the whole, and it has lost no accuracy."""
    if metric.name in original:
        return original[metric.name]
    return 1.0 if metric.name.endswith("_fraction") else 0.0 if metric.name.endswith(drop_of("")) else float("nan")


def _volume(points: Sequence[Point], x: Metric, y: Metric) -> float | None:
    if x.worst is None or y.worst is None:
        return None
    return hypervolume(points, x.name, y.name, (x.worst, y.worst))


def _subtitle(
    x: Metric, trials: int, failed: int, stopped: int, left_out: int, front: int, volume: float | None
) -> str:
    early = "stopped early" + ", whatever their latency" * ("latency" in x.name)
    lacking = "without this size" if x.known or "latency" in x.name else "without these metrics"
    lacking = "not measured alone" if x.name == IDLE else lacking
    counts = ((failed, "failed"), (stopped, early), (left_out, lacking))
    asides = [f"{n} {what}" for n, what in counts if n]
    counted = f"{trials} trial{'s' * (trials != 1)}" + (f" ({', '.join(asides)})" if asides else "")
    area = "" if volume is None else f", hypervolume {volume:.2f}"
    return f"{counted}, {front} on the front{area}" if front else f"{counted}: no front"


def labelled_of(
    front: Sequence[Point], x: Metric, y: Metric, score: float | None, drops: Sequence[float] = DROPS
) -> tuple[tuple[Point, str], ...]:
    """The smallest network of ``front`` within each of ``drops`` points of the original's ``score``, with its label.

    Where there is none, the best one; on another axis than that of the score, or of one that is not in percent, the
    two ends.
    """
    if score is None or y.unit != "%":
        chosen = {p.key: p for p in (*front[:1], *front[-1:])}
    else:
        within = [[p for p in front if y.loss(p.y) <= y.loss(score) + drop] for drop in drops]
        found = [smallest(points, x.name, y.name) if x.better == "min" else points[0] for points in within if points]
        chosen = {p.key: p for p in found} or {p.key: p for p in front[-1:]}
    return tuple((p, f"{_short(y, p.y)} at {_short(x, p.x)}") for p in chosen.values())


def _short(metric: Metric, value: float) -> str:
    if metric.unit.startswith("%"):
        return f"{metric.scale * value:.{1 if metric.scale == 1 else 0}f} %"
    return f"{metric.show(value)} {metric.unit}".rstrip()


def step_line(info: ParetoInfo) -> list[tuple[float, float]]:
    """Return the corners, in the units of the axes, of the border that the front draws: along x, then along y."""
    corners: list[tuple[float, float]] = []
    for point in info.front:
        x, y = info.place(point.x, point.y)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners
