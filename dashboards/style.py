"""Markers and the page that every picture shares; the colours are those of `dashboards.palette`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from core.criteria import CRITERIA
from dashboards.palette import BASELINE, COLOURS, assign, colours

__all__ = ["BASELINE", "COLOURS", "GRID", "INK", "MARKERS", "MUTED", "Marker", "colours", "markers"]
INK, MUTED, GRID = "#1a1a1a", "#5c5c5c", "#e3e3e3"


@dataclass(frozen=True)
class Marker:
    """One shape under the names that the two drawing libraries have for it.

    Attributes:
        static: matplotlib's.
        interactive: plotly's.
    """

    static: str
    interactive: str


MARKERS = (
    Marker("o", "circle"),
    Marker("s", "square"),
    Marker("^", "triangle-up"),
    Marker("D", "diamond"),
    Marker("v", "triangle-down"),
    Marker("P", "cross"),
    Marker("X", "x"),
    Marker("h", "hexagon"),
)


def markers(present: Iterable[str]) -> dict[str, Marker]:
    """Give each criterion ``present`` its marker; a registered one has the same marker in every picture."""
    return assign(CRITERIA.names(), present, MARKERS)


def page(title: str, subtitle: str) -> tuple[Figure, Axes]:
    """Return a figure with its headings, and axes that leave the right-hand side to the legends."""
    figure = Figure(figsize=(9.6, 5.6), dpi=150, facecolor="white")
    axes = figure.add_axes((0.075, 0.11, 0.695, 0.735))
    figure.text(0.075, 0.945, title, fontsize=13, fontweight="bold", color=INK, parse_math=False)
    figure.text(0.075, 0.893, subtitle, fontsize=9.5, color=MUTED, parse_math=False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9)
    return figure, axes


def side_legends(axes: Axes, *legends: tuple[str, Sequence[Artist]]) -> None:
    """Put legends, each a title and its entries, to the right of the axes, one below the other."""
    renderer, top = measuring(axes), 1.0
    for title, handles in legends:
        legend = _side_legend(axes, handles, title, top)
        box = legend.get_window_extent(renderer).transformed(axes.transAxes.inverted())
        top = box.y0 - 0.05


def measuring(axes: Axes) -> RendererBase:
    """Return a renderer that tells how large the texts of the axes' figure will be."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    canvas: Any = FigureCanvasAgg(figure)
    renderer: RendererBase = canvas.get_renderer()
    return renderer


def _side_legend(axes: Axes, handles: Sequence[Artist], title: str, top: float) -> Legend:
    legend = Legend(
        axes,
        list(handles),
        [str(handle.get_label()) for handle in handles],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, top),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        labelcolor=INK,
        borderaxespad=0.0,
    )
    axes.add_artist(legend)
    return legend


def layout(title: str, subtitle: str) -> dict[str, Any]:
    """Return the layout that interactive pictures share."""
    heading = f"<b>{escape(title)}</b><br><span style='font-size:13px;color:{MUTED}'>{escape(subtitle)}</span>"
    axis = {"gridcolor": GRID, "linecolor": MUTED, "zeroline": False, "ticks": "outside", "tickcolor": GRID}
    return {
        "template": "none",
        "title": {"text": heading, "x": 0.0, "xref": "paper", "xanchor": "left", "y": 0.95, "yanchor": "top"},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 70, "r": 30, "t": 95, "b": 60},
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 12}},
        "hovermode": "closest",
        "xaxis": axis,
        "yaxis": axis,
    }


def legend_at(title: str, top: float, clickable: bool) -> dict[str, Any]:
    """Return an interactive legend to the right of the plot, its upper edge at ``top``."""
    inert = {} if clickable else {"itemclick": False, "itemdoubleclick": False}
    return {"title": {"text": title}, "x": 1.02, "xanchor": "left", "y": top, "yanchor": "top", **inert}
