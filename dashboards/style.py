"""Colours, markers and the page that every picture shares.

The colours keep apart for the common kinds of colour blindness (after Okabe & Ito 2008), and no two neighbours in the
list are equally light, so that a grey print still tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from core.criteria import CRITERIA
from core.decompositions import DECOMPOSITIONS

BASELINE = "none"
"""The decomposition that everything is compared with: first in legends, and grey."""

COLOURS = ("#858585", "#12357f", "#c43c14", "#f0b91e", "#5a2470", "#3f9fd8", "#0b6e5a", "#e48fb8", "#8a6a3a", "#9ccf5f")
Look = TypeVar("Look")
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


def colours(present: Iterable[str]) -> dict[str, str]:
    """Give each decomposition ``present`` its colour; a registered one has the same colour in every picture."""
    known = sorted(DECOMPOSITIONS.names(), key=lambda name: name != BASELINE)
    return _assign(known, present, COLOURS)


def markers(present: Iterable[str]) -> dict[str, Marker]:
    """Give each criterion ``present`` its marker; a registered one has the same marker in every picture."""
    return _assign(CRITERIA.names(), present, MARKERS)


def _assign(known: Sequence[str], present: Iterable[str], looks: Sequence[Look]) -> dict[str, Look]:
    """Give every name of ``known``, and then any other one, the next look; return those of ``present``, in order."""
    wanted = set(present)
    names = [*known, *sorted(wanted - set(known))]
    return {name: look for name, look in zip(names, cycle(looks), strict=False) if name in wanted}


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
