"""``pareto``: accuracy against size; every trial faint, the front drawn, the original marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise, product
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dashboards.base import Plot, register
from dashboards.labels import place_labels
from dashboards.pareto_info import ParetoInfo, get_pareto_info, step_line
from dashboards.points import Point
from dashboards.style import INK, MUTED, Marker, colours, layout, legend_at, markers, page, side_legends

CROWD = 60
"""More points than this are drawn smaller and fainter."""

LEAST_SPAN = 2.0
"""Points of accuracy that the y axis covers at least, so that noise does not look like a trend."""


def draw(info: ParetoInfo) -> Figure:
    """Draw the plot for paper."""
    figure, axes = page(info.title, info.subtitle)
    axes.set_xlabel(info.x_label, color=INK)
    axes.set_ylabel(info.y_label, color=INK)
    _draw_points(axes, info)
    corners = step_line(info.front)
    if corners:
        axes.plot(*zip(*corners, strict=True), color=INK, linewidth=1.3, zorder=4)
    axes.plot(100, info.original_accuracy, "*", color=INK, markersize=14, markeredgecolor="white", zorder=7)
    x_range, y_range = _limits(info)
    axes.set(xlim=x_range, ylim=y_range)
    anchors = [(100.0, info.original_accuracy), *((100 * p.x, p.accuracy) for p, _ in info.labelled)]
    texts = [f"original {info.original_accuracy:.2f} %", *(text for _, text in info.labelled)]
    place_labels(axes, anchors, texts, list(_along(corners)), [(100 * p.x, p.accuracy) for p in info.points])
    _draw_legends(axes, info)
    return figure


def _draw_points(axes: Axes, info: ParetoInfo) -> None:
    colour, marker = _looks(info)
    faint, size = (0.5, 16) if len(info.points) > CROWD else (0.6, 26)
    layers: tuple[tuple[Sequence[Point], dict[str, Any]], ...] = (
        (info.points, {"alpha": faint, "s": size, "linewidths": 0, "zorder": 2}),
        (info.front, {"s": 46, "linewidths": 0.8, "edgecolors": INK, "zorder": 5}),
    )
    for points, style in layers:
        for criterion, shape in marker.items():
            of = [p for p in points if p.criterion == criterion]
            xs, ys = [100 * p.x for p in of], [p.accuracy for p in of]
            axes.scatter(xs, ys, c=[colour[p.decomposition] for p in of], marker=shape.static, **style)


def _looks(info: ParetoInfo) -> tuple[dict[str, str], dict[str, Marker]]:
    return colours(p.decomposition for p in info.points), markers(p.criterion for p in info.points)


def _limits(info: ParetoInfo) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of x (percent) and y that show every point and leave room for labels above."""
    accuracies = [info.original_accuracy, *(p.accuracy for p in info.points)]
    high = max(accuracies)
    low = min([high - LEAST_SPAN, *accuracies])
    span = high - low
    right = max([100.0, *(100 * p.x for p in info.points)])
    return (0.0, 1.05 * right), (low - 0.05 * span, high + 0.1 * span)


def _along(corners: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Positions close together along the line through ``corners``."""
    for (x0, y0), (x1, y1) in pairwise(corners):
        yield from zip(np.linspace(x0, x1, 40).tolist(), np.linspace(y0, y1, 40).tolist(), strict=True)


def _draw_legends(axes: Axes, info: ParetoInfo) -> None:
    colour, marker = _looks(info)
    dots = [Line2D([], [], marker="o", linestyle="", color=c, label=name) for name, c in colour.items()]
    shapes = [
        Line2D([], [], marker=m.static, linestyle="", color=MUTED, markerfacecolor="white", label=name)
        for name, m in marker.items()
    ]
    line = Line2D([], [], color=INK, linewidth=1.3, label="Pareto front")
    star = Line2D([], [], color=INK, marker="*", markersize=11, linestyle="", label="original network")
    if not info.points:
        side_legends(axes, ("", [star]))
        return
    side_legends(axes, ("decomposition (colour)", dots), ("criterion (marker)", [*shapes, line, star]))


def draw_interactive(info: ParetoInfo) -> go.Figure:
    """Draw the plot for a browser: hovering shows a trial's full configuration, a click in the legend hides some."""
    (x_low, x_high), (y_low, y_high) = _limits(info)
    figure = go.Figure(layout=layout(info.title, info.subtitle))
    figure.update_xaxes(title=info.x_label, range=[x_low, x_high])
    figure.update_yaxes(title=info.y_label, range=[y_low, y_high])
    figure.update_layout(
        legend=legend_at("decomposition", 1.0, clickable=True),
        legend2=legend_at("criterion" if info.points else "", 0.5, clickable=False),
    )
    front = {p.key for p in info.front}
    others = [p for p in info.points if p.key not in front]
    look = _looks(info)
    figure.add_traces([*_legend_traces(*look), *_trial_traces(others, *look, {"size": 8, "opacity": 0.5})])
    figure.add_traces(list(_front_traces(info)))
    outlined = {"size": 11, "line": {"color": INK, "width": 1}}
    figure.add_traces(list(_trial_traces(info.front, *look, outlined)))
    return figure


def _legend_traces(colour: Mapping[str, str], marker: Mapping[str, Marker]) -> Iterator[go.Scatter]:
    """Entries of the two legends, without data; a click on a decomposition's hides its group of traces."""
    for name, tint in colour.items():
        dot = {"color": tint, "size": 10}
        yield go.Scatter(x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=dot)
    for name, shape in marker.items():
        look = {"symbol": shape.interactive, "color": "white", "size": 9, "line": {"color": MUTED, "width": 1.5}}
        yield go.Scatter(x=[None], y=[None], mode="markers", name=name, legend="legend2", marker=look)


def _trial_traces(
    points: Sequence[Point], colour: Mapping[str, str], marker: Mapping[str, Marker], look: Mapping[str, Any]
) -> Iterator[go.Scatter]:
    """One trace for each decomposition and criterion of ``points``."""
    for decomposition, criterion in product(colour, marker):
        of = [p for p in points if (p.decomposition, p.criterion) == (decomposition, criterion)]
        if not of:
            continue
        yield go.Scatter(
            x=[100 * p.x for p in of],
            y=[p.accuracy for p in of],
            mode="markers",
            name=decomposition,
            legendgroup=decomposition,
            showlegend=False,
            hovertext=["<br>".join(map(escape, p.hover)) for p in of],
            hoverinfo="text",
            marker={"symbol": marker[criterion].interactive, "color": colour[decomposition], **look},
        )


def _front_traces(info: ParetoInfo) -> Iterator[go.Scatter]:
    corners = step_line(info.front)
    common = {"legend": "legend2", "hoverinfo": "skip"}
    if corners:
        x, y = zip(*corners, strict=True)
        yield go.Scatter(x=x, y=y, mode="lines", name="Pareto front", line={"color": INK, "width": 1.6}, **common)
    star = {"symbol": "star", "size": 15, "color": INK}
    yield go.Scatter(
        x=[100],
        y=[info.original_accuracy],
        mode="markers+text",
        name="original network",
        text=[f"original {info.original_accuracy:.2f} %"],
        textposition="top left",
        marker=star,
        **common,
    )


register("pareto")(Plot(get_pareto_info, draw, draw_interactive))
