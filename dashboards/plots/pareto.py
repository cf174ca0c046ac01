"""``pareto``: accuracy against size; every trial faint, the front drawn, the original marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise, product
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core.metrics import TEST
from dashboards.base import Plot, register
from dashboards.labels import place_labels
from dashboards.pareto_info import ParetoInfo, get_pareto_info, step_line
from dashboards.points import Point
from dashboards.style import Marker, colours, layout, legend_at, markers, page, side_legends, theme

CROWD = 60
"""More points than this are drawn smaller and fainter."""

USEFUL, FEW = 20.0, 10
"""Points of accuracy that people may give away; fewer trials than these are all shown."""

LEAST_SPAN = 2.0
"""Points of accuracy that the y axis covers at least, so that noise does not look like a trend."""


def draw(info: ParetoInfo) -> Figure:
    """Draw the plot for paper."""
    figure, axes = page(info.title, info.subtitle)
    axes.set_xlabel(info.x_label, color=theme().ink)
    axes.set_ylabel(info.y_label, color=theme().ink)
    _draw_points(axes, info)
    corners, original = step_line(info), info.original_place
    if corners:
        axes.plot(*zip(*corners, strict=True), color=theme().ink, linewidth=1.3, zorder=4)
    axes.plot(*original, "*", color=theme().ink, markersize=14, markeredgecolor=theme().paper, zorder=7)
    x_range, y_range = limits(info)
    axes.set(xlim=x_range, ylim=y_range)
    anchors = [*_originals(info), *(info.place(p.x, p.y) for p, _ in info.labelled)]
    texts = [_original_text(info)] * len(_originals(info)) + [text for _, text in info.labelled]
    draw_below(axes, [info])
    spread = whiskers(info)
    for line in spread:
        axes.plot(*zip(*line, strict=True), color=theme().muted, linewidth=1.0, zorder=4.5)
    lines = [place for line in (corners, *spread) for place in along(line)]
    place_labels(axes, anchors, texts, lines, [info.place(p.x, p.y) for p in info.points])
    _draw_legends(axes, info)
    return figure


def _originals(info: ParetoInfo) -> list[tuple[float, float]]:
    """Where the original network stands: one place, or none where it lacks one of the metrics."""
    return [info.original_place] if all(map(math.isfinite, info.original_place)) else []


def _original_text(info: ParetoInfo) -> str:
    return f"original {info.y_metric.show(info.original[1])} {info.y_metric.unit}".rstrip()


def _draw_points(axes: Axes, info: ParetoInfo) -> None:
    colour, marker = _looks(info)
    faint, size = (0.5, 16) if len(info.points) > CROWD else (0.6, 26)
    layers: tuple[tuple[Sequence[Point], dict[str, Any]], ...] = (
        (info.points, {"alpha": faint, "s": size, "linewidths": 0, "zorder": 2}),
        (info.front, {"s": 46, "linewidths": 0.8, "edgecolors": theme().ink, "zorder": 5}),
    )
    for points, style in layers:
        for criterion, shape in marker.items():
            of = [p for p in points if p.criterion == criterion]
            places = np.array([info.place(p.x, p.y) for p in of]).reshape(-1, 2)
            axes.scatter(
                places[:, 0], places[:, 1], c=[colour[p.decomposition] for p in of], marker=shape.static, **style
            )


def _looks(info: ParetoInfo) -> tuple[dict[str, str], dict[str, Marker]]:
    return colours(p.decomposition for p in info.points), markers(p.criterion for p in info.points)


def limits(info: ParetoInfo) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of x and y: all of x, and of y what people choose from, with room for labels."""
    places = [*_originals(info), *(info.place(p.x, p.y) for p in info.points)] or [(0.0, 0.0)]
    xs, ys = zip(*places, strict=True)
    low, high = min(ys), max(ys)
    if (floor := useful_from(info)) is not None:
        low = max(low, floor)
    if info.y_metric.unit == "%":
        low = min(low, high - LEAST_SPAN)
    span = (high - low) or abs(high) or 1.0
    top, bottom = (0.1, 0.05) if info.y_metric.better == "max" else (0.05, 0.1)
    right = max([100.0, *xs]) if info.x_metric.scale == 100 else max(xs)
    left = min(0.0, *xs) if info.x_metric.relative or info.x_metric.scale == 100 else min(xs) - 0.05 * (right - min(xs))
    return (left, right + 0.05 * ((right - left) or 1.0)), (low - bottom * span, high + top * span)


def useful_from(info: ParetoInfo) -> float | None:
    """Where the y axis begins so that people see what they choose from, in its units; None: at the lowest point.

    A little below the last of the front that has not lost more than `USEFUL` points against the original network.
    """
    named = info.y_metric.name.removeprefix(TEST) == info.scored.score.name
    if not named or info.y_metric.unit != "%" or info.y_metric.better != "max" or len(info.points) < FEW:
        return None
    original = info.original_place[1]
    useful = [p.y for p in info.front if p.y >= original - USEFUL]
    if not useful:
        return None
    top = max(original, max(useful))
    floor = min(useful) - max(0.25 * (top - min(useful)), LEAST_SPAN)
    lowest = min(p.y for p in info.points)
    return floor if floor - lowest > 0.25 * (top - floor) else None


def whiskers(info: ParetoInfo) -> list[list[tuple[float, float]]]:
    """A line through each network of the front, to both sides as far as one standard deviation of a latency."""
    if not math.isfinite(info.noise):
        return []
    places = [info.place(p.x, p.y) for p in info.front]
    return [[(x * (1 - info.noise), y), (x * (1 + info.noise), y)] for x, y in places]


def draw_below(axes: Axes, infos: Sequence[ParetoInfo]) -> None:
    """What lies below the axes: a tick for each trial on their border, and beneath it how many they are."""
    low = axes.get_ylim()[0]
    places = [info.place(p.x, p.y) for info in infos for p in info.points]
    hidden = [x for x, y in places if y < low]
    if not hidden:
        return
    axes.plot(hidden, [low] * len(hidden), "|", color=theme().muted, markersize=8, alpha=0.6, clip_on=False, zorder=1)
    text = f"{len(hidden)} of {len(places)} trials are below"
    axes.text(1, -0.112, text, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=theme().muted)


def along(corners: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Positions close together along the line through ``corners``."""
    for (x0, y0), (x1, y1) in pairwise(corners):
        yield from zip(np.linspace(x0, x1, 40).tolist(), np.linspace(y0, y1, 40).tolist(), strict=True)


def _draw_legends(axes: Axes, info: ParetoInfo) -> None:
    colour, marker = _looks(info)
    dots = [Line2D([], [], marker="o", linestyle="", color=c, label=name) for name, c in colour.items()]
    shapes = [
        Line2D([], [], marker=m.static, linestyle="", color=theme().muted, markerfacecolor=theme().paper, label=name)
        for name, m in marker.items()
    ]
    line = Line2D([], [], color=theme().ink, linewidth=1.3, label="Pareto front")
    star = Line2D([], [], color=theme().ink, marker="*", markersize=11, linestyle="", label="original network")
    if not info.points:
        side_legends(axes, ("", [star]))
        return
    side_legends(axes, ("decomposition (colour)", dots), ("criterion (marker)", [*shapes, line, star]))


def draw_interactive(info: ParetoInfo) -> go.Figure:
    """Draw the plot for a browser: hovering shows a trial's full configuration, a click in the legend hides some."""
    (x_low, x_high), (y_low, y_high) = limits(info)
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
    figure.add_traces([*_legend_traces(*look), *_trial_traces(info, others, *look, {"size": 8, "opacity": 0.5})])
    figure.add_traces(list(_front_traces(info)))
    outlined = {"size": 11, "line": {"color": theme().ink, "width": 1}}
    figure.add_traces(list(_trial_traces(info, info.front, *look, outlined)))
    return figure


def _legend_traces(colour: Mapping[str, str], marker: Mapping[str, Marker]) -> Iterator[go.Scatter]:
    """Entries of the two legends, without data; a click on a decomposition's hides its group of traces."""
    for name, tint in colour.items():
        dot = {"color": tint, "size": 10}
        yield go.Scatter(x=[None], y=[None], mode="markers", name=name, legendgroup=name, marker=dot)
    for name, shape in marker.items():
        line = {"color": theme().muted, "width": 1.5}
        look = {"symbol": shape.interactive, "color": theme().paper, "size": 9, "line": line}
        yield go.Scatter(x=[None], y=[None], mode="markers", name=name, legend="legend2", marker=look)


def _trial_traces(
    info: ParetoInfo,
    points: Sequence[Point],
    colour: Mapping[str, str],
    marker: Mapping[str, Marker],
    look: Mapping[str, Any],
) -> Iterator[go.Scatter]:
    """One trace for each decomposition and criterion of ``points``."""
    for decomposition, criterion in product(colour, marker):
        of = [p for p in points if (p.decomposition, p.criterion) == (decomposition, criterion)]
        if not of:
            continue
        yield go.Scatter(
            x=[info.place(p.x, p.y)[0] for p in of],
            y=[info.place(p.x, p.y)[1] for p in of],
            mode="markers",
            name=decomposition,
            legendgroup=decomposition,
            showlegend=False,
            hovertext=["<br>".join(map(escape, p.hover)) for p in of],
            hoverinfo="text",
            marker={"symbol": marker[criterion].interactive, "color": colour[decomposition], **look},
        )


def _front_traces(info: ParetoInfo) -> Iterator[go.Scatter]:
    corners = step_line(info)
    common = {"legend": "legend2", "hoverinfo": "skip"}
    if corners:
        x, y = zip(*corners, strict=True)
        line = {"color": theme().ink, "width": 1.6}
        yield go.Scatter(x=x, y=y, mode="lines", name="Pareto front", line=line, **common)
    star = {"symbol": "star", "size": 15, "color": theme().ink}
    yield go.Scatter(
        x=[x for x, _ in _originals(info)],
        y=[y for _, y in _originals(info)],
        mode="markers+text",
        name="original network",
        text=[_original_text(info)],
        textposition="top left",
        marker=star,
        **common,
    )


register("pareto")(Plot(get_pareto_info, draw, draw_interactive))
