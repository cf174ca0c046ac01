"""Several sweeps' fronts in one plot: a colour for each, its other trials faint, with hypervolumes of one reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.errors import shortened
from dashboards.labels import place_labels
from dashboards.pareto_info import ParetoInfo, labelled_of, step_line
from dashboards.plots.pareto import along, draw_below, limits
from dashboards.style import MARKERS, Marker, layout, legend_at, page, side_legends, theme

TITLE = "Pareto fronts"
WITHIN = (1.0, 5.0)
"""For each of these, the smallest network of each sweep that loses at most so many points of accuracy is labelled."""
LONGEST_NAME, MANY = 18, 9
"""Characters of a name in the legend, in which each sweep has two lines; more sweeps than `MANY` have one."""


def looks(infos: Sequence[ParetoInfo]) -> list[tuple[ParetoInfo, str, Marker]]:
    """Each sweep with its colour and its marker; the first colour is a grey, which means a baseline elsewhere."""
    palette = cycle(theme().palette[1:])
    return [(info, next(palette), MARKERS[place % len(MARKERS)]) for place, info in enumerate(infos)]


def names(infos: Sequence[ParetoInfo]) -> dict[int, str]:
    """What the legend calls each sweep (by its place), with its hypervolume if it has one."""
    most, between = (LONGEST_NAME, "\n") if len(infos) <= MANY else (LONGEST_NAME - 6, "  ")
    return {
        place: shortened(info.title, most) + ("" if info.hypervolume is None else f"{between}{info.hypervolume:.2f}")
        for place, info in enumerate(infos)
    }


def subtitle(infos: Sequence[ParetoInfo]) -> str:
    """What the numbers in the legend are."""
    trials = sum(len(info.points) for info in infos)
    counted = f"{len(infos)} sweeps, {trials} trials"
    if any(info.hypervolume is None for info in infos):
        return counted
    x, y = infos[0].x_metric, infos[0].y_metric
    corner = " and ".join(f"{m.scale * m.worst:g} {m.unit}" for m in (x, y) if m.worst is not None)
    return f"{counted}; in the legend: hypervolume against {corner}"


def draw_fronts(infos: Sequence[ParetoInfo]) -> Figure:
    """Draw the plot for paper."""
    figure, axes = page(TITLE, subtitle(infos))
    axes.set_xlabel(_noisiest(infos).x_label, color=theme().ink)
    axes.set_ylabel(infos[0].y_label, color=theme().ink)
    called, entries = names(infos), []
    for place, (info, colour, shape) in enumerate(looks(infos)):
        for points, style in ((info.points, {"alpha": 0.3, "s": 14}), (info.front, {"s": 40, "zorder": 5})):
            xs = np.array([info.place(p.x, p.y) for p in points]).reshape(-1, 2)
            axes.scatter(xs[:, 0], xs[:, 1], c=colour, marker=shape.static, linewidths=0, **style)
        if corners := step_line(info):
            axes.plot(*zip(*corners, strict=True), color=colour, linewidth=1.5, zorder=4)
        axes.plot(*info.original_place, "*", color=colour, markersize=13, markeredgecolor=theme().paper, zorder=7)
        entries.append(Line2D([], [], color=colour, marker=shape.static, linewidth=1.5, label=called[place]))
    entries.append(
        Line2D([], [], color=theme().muted, marker="*", markersize=11, linestyle="", label="original network")
    )
    ranges = [limits(info) for info in infos]
    axes.set(xlim=_hull([x for x, _ in ranges]), ylim=_hull([y for _, y in ranges]))
    draw_below(axes, infos)
    _label(axes, infos)
    side_legends(axes, ("sweep", entries))
    return figure


def _label(axes: Axes, infos: Sequence[ParetoInfo]) -> None:
    chosen = [
        (info.place(p.x, p.y), text)
        for info in infos
        for p, text in labelled_of(info.front, info.x_metric, info.y_metric, info.original_accuracy, WITHIN)
    ]
    lines = [place for info in infos for place in along(step_line(info))]
    points = [place for info in infos for place in (info.original_place, *(info.place(p.x, p.y) for p in info.points))]
    marks = [place for place in points if all(map(math.isfinite, place))]
    place_labels(axes, [place for place, _ in chosen], [text for _, text in chosen], lines, marks)


def _noisiest(infos: Sequence[ParetoInfo]) -> ParetoInfo:
    """The sweep whose latencies are least to be trusted."""
    return max(infos, key=lambda info: info.noise if math.isfinite(info.noise) else -1.0)


def draw_fronts_interactive(infos: Sequence[ParetoInfo]) -> go.Figure:
    """Draw the plot for a browser: a click in the legend hides a sweep."""
    figure = go.Figure(layout=layout(TITLE, subtitle(infos)))
    figure.update_layout(legend=legend_at("sweep", 1.0, clickable=True))
    figure.update_xaxes(title=_noisiest(infos).x_label)
    ranges = [limits(info) for info in infos]
    figure.update_xaxes(range=_hull([x for x, _ in ranges]))
    figure.update_yaxes(title=infos[0].y_label, range=_hull([y for _, y in ranges]))
    called = names(infos)
    for place, (info, colour, shape) in enumerate(looks(infos)):
        group = {"legendgroup": str(place), "marker": {"symbol": shape.interactive, "color": colour, "size": 9}}
        front = {p.key for p in info.front}
        corners: Mapping[str, object] = {"line": {"color": colour, "width": 1.8}, "mode": "lines", "hoverinfo": "skip"}
        xy = list(zip(*step_line(info), strict=True)) or [(), ()]
        figure.add_scatter(x=xy[0], y=xy[1], name=called[place].replace("\n", "  "), legendgroup=str(place), **corners)
        for points, opacity in (([p for p in info.points if p.key not in front], 0.3), (info.front, 1.0)):
            figure.add_scatter(
                x=[info.place(p.x, p.y)[0] for p in points],
                y=[info.place(p.x, p.y)[1] for p in points],
                mode="markers",
                opacity=opacity,
                showlegend=False,
                hovertext=["<br>".join(map(escape, (info.title, *p.hover))) for p in points],
                hoverinfo="text",
                **group,
            )
    return figure


def _hull(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
