"""``accuracy-by-ratio``: the best accuracy of each decomposition at each ratio, as papers print it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.evaluators import USUAL, Evaluator
from core.metrics import Metric, axis_named
from core.records import TrialRecord
from dashboards.base import Plot, register
from dashboards.points import Point, make_points
from dashboards.style import MARKERS, Marker, colours, layout, legend_at, page, side_legends, theme

MOST_RATIOS = 25
"""With more different ratios than this, they are put into bins of `BIN`."""

BIN = 0.05


@dataclass(frozen=True)
class Series:
    """The best trials of one decomposition.

    Attributes:
        decomposition: its name.
        best: (ratio or middle of its bin, trial), by increasing ratio.
    """

    decomposition: str
    best: tuple[tuple[float, Point], ...]


@dataclass(frozen=True)
class AccuracyByRatioInfo:
    """All that the plot shows.

    Attributes:
        title: first line.
        subtitle: what was counted, in words.
        x_label: of the axis, with unit.
        y_metric: that of the y axis.
        series: one per decomposition.
        original: of the uncompressed network, on the y axis; NaN where it has none.
        left_out: finished trials that have a ratio per site or a target, and so no single one.
    """

    title: str
    subtitle: str
    x_label: str
    y_metric: Metric
    series: tuple[Series, ...]
    original: float
    left_out: int


def get_accuracy_by_ratio_info(
    records: Sequence[TrialRecord],
    original: Mapping[str, float],
    *,
    x: str = "params",
    y: str = "",
    title: str = "By ratio",
    scored: Evaluator = USUAL,
) -> AccuracyByRatioInfo:
    """Gather the best ``y`` per decomposition and ratio; ``x`` is ignored, since the ratio is on that axis.

    Raises:
        UnknownNameError: ``y`` is no metric.
    """
    del x
    metric = scored.named(axis_named(y or scored.score.name, "y axis"))
    finished = make_points(records, metric.name, metric.name, scored)
    points = [p for p in finished if not p.config.get("ratios") and math.isfinite(p.ratio)]
    binned = len({p.ratio for p in points}) > MOST_RATIOS
    left_out = len(finished) - len(points)
    stopped = sum(record.status == "stopped" for record in records)
    notes = ["best of all criteria and options at each ratio", f"{len(points)} trials"]
    notes += [f"{stopped} stopped early left out"] * bool(stopped)
    notes += [f"ratios in bins of {BIN:g}"] * binned + [f"{left_out} without a single ratio left out"] * bool(left_out)
    return AccuracyByRatioInfo(
        title=title,
        subtitle=", ".join(notes),
        x_label="ratio: channels removed per set (%)",
        y_metric=metric,
        series=tuple(
            Series(name, _best(points, name, binned, metric)) for name in colours(p.decomposition for p in points)
        ),
        original=original.get(metric.name, math.nan),
        left_out=left_out,
    )


def _best(points: Sequence[Point], decomposition: str, binned: bool, metric: Metric) -> tuple[tuple[float, Point], ...]:
    best: dict[float, Point] = {}
    for point in (p for p in points if p.decomposition == decomposition):
        ratio = round(round(point.ratio / BIN) * BIN, 10) if binned else point.ratio
        if ratio not in best or metric.loss(point.y) < metric.loss(best[ratio].y):
            best[ratio] = point
    return tuple(sorted(best.items()))


def _looks(info: AccuracyByRatioInfo) -> Iterator[tuple[Series, str, Marker]]:
    colour = colours(series.decomposition for series in info.series)
    for index, series in enumerate(info.series):
        yield series, colour[series.decomposition], MARKERS[index % len(MARKERS)]


def draw(info: AccuracyByRatioInfo) -> Figure:
    """Draw the plot for paper."""
    figure, axes = page(info.title, info.subtitle)
    axes.set_xlabel(info.x_label, color=theme().ink)
    axes.set_ylabel(info.y_metric.title, color=theme().ink)
    scale = info.y_metric.scale
    original = axes.axhline(scale * info.original, color=theme().ink, linewidth=1, linestyle="--")
    original.set_label("original network")
    lines = list(_draw_series(axes, info))
    axes.margins(y=0.08)
    side_legends(axes, ("decomposition", [*lines, original]))
    return figure


def _draw_series(axes: Axes, info: AccuracyByRatioInfo) -> Iterator[Line2D]:
    for series, colour, marker in _looks(info):
        yield from axes.plot(
            [100 * ratio for ratio, _ in series.best],
            [info.y_metric.scale * point.y for _, point in series.best],
            color=colour,
            marker=marker.static,
            markersize=6,
            markeredgecolor=theme().paper,
            linewidth=2,
            label=series.decomposition,
        )


def draw_interactive(info: AccuracyByRatioInfo) -> go.Figure:
    """Draw the plot for a browser: hovering shows the full configuration of the best trial."""
    figure = go.Figure(layout=layout(info.title, info.subtitle))
    figure.update_layout(legend=legend_at("decomposition", 1.0, clickable=True))
    figure.update_xaxes(title=info.x_label)
    figure.update_yaxes(title=info.y_metric.title)
    for series, colour, marker in _looks(info):
        figure.add_scatter(
            x=[100 * ratio for ratio, _ in series.best],
            y=[info.y_metric.scale * point.y for _, point in series.best],
            mode="lines+markers",
            name=series.decomposition,
            hovertext=["<br>".join(map(escape, point.hover)) for _, point in series.best],
            hoverinfo="text",
            line={"color": colour, "width": 2.5},
            marker={"symbol": marker.interactive, "size": 9},
        )
    ratios = [100 * ratio for series in info.series for ratio, _ in series.best] or [0, 100]
    figure.add_scatter(
        x=[min(ratios), max(ratios)],
        y=[info.y_metric.scale * info.original] * 2,
        mode="lines",
        name="original network",
        hoverinfo="name+y",
        line={"color": theme().ink, "dash": "dash", "width": 1.2},
    )
    return figure


register("accuracy-by-ratio")(Plot(get_accuracy_by_ratio_info, draw, draw_interactive))
