"""Several sweeps' fronts in one plot: a colour for each, its other trials faint, with hypervolumes of one reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dashboards.pareto_info import ParetoInfo, step_line
from dashboards.plots.pareto import limits
from dashboards.style import MARKERS, Marker, layout, legend_at, page, side_legends, theme

TITLE = "Pareto fronts"


def looks(infos: Sequence[ParetoInfo]) -> list[tuple[ParetoInfo, str, Marker]]:
    """Each sweep with its colour and its marker; the first colour is a grey, which means a baseline elsewhere."""
    palette = cycle(theme().palette[1:])
    return [(info, next(palette), MARKERS[place % len(MARKERS)]) for place, info in enumerate(infos)]


def names(infos: Sequence[ParetoInfo]) -> dict[int, str]:
    """What the legend calls each sweep (by its place), with its hypervolume if it has one."""
    return {
        place: info.title + ("" if info.hypervolume is None else f"  {info.hypervolume:.2f}")
        for place, info in enumerate(infos)
    }


def subtitle(infos: Sequence[ParetoInfo]) -> str:
    """What the numbers in the legend are."""
    trials = sum(len(info.points) for info in infos)
    return f"{len(infos)} sweeps, {trials} trials; in the legend: hypervolume of 100, against 0 % at the full size"


def draw_fronts(infos: Sequence[ParetoInfo]) -> Figure:
    """Draw the plot for paper."""
    figure, axes = page(TITLE, subtitle(infos))
    axes.set_xlabel(infos[0].x_label, color=theme().ink)
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
    side_legends(axes, ("sweep", entries))
    return figure


def draw_fronts_interactive(infos: Sequence[ParetoInfo]) -> go.Figure:
    """Draw the plot for a browser: a click in the legend hides a sweep."""
    figure = go.Figure(layout=layout(TITLE, subtitle(infos)))
    figure.update_layout(legend=legend_at("sweep", 1.0, clickable=True))
    figure.update_xaxes(title=infos[0].x_label)
    figure.update_yaxes(title=infos[0].y_label)
    called = names(infos)
    for place, (info, colour, shape) in enumerate(looks(infos)):
        group = {"legendgroup": str(place), "marker": {"symbol": shape.interactive, "color": colour, "size": 9}}
        front = {p.key for p in info.front}
        corners: Mapping[str, object] = {"line": {"color": colour, "width": 1.8}, "mode": "lines", "hoverinfo": "skip"}
        xy = list(zip(*step_line(info), strict=True)) or [(), ()]
        figure.add_scatter(x=xy[0], y=xy[1], name=called[place], legendgroup=str(place), **corners)
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
