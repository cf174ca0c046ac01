"""Markers and the page that every picture shares; the colours are those of `dashboards.palette`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
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
from dashboards.palette import BASELINE, COLOURS, ON_DARK, assign
from dashboards.palette import colours as of_decompositions

__all__ = ["BASELINE", "DARK", "LIGHT", "MARKERS", "Marker", "Theme", "colours", "drawn_in", "markers", "theme"]


@dataclass(frozen=True)
class Theme:
    """The colours of a picture that mean nothing by themselves, and those that do.

    Attributes:
        paper: behind everything.
        ink: of lines and texts.
        muted: of what matters less.
        grid: of the lines behind the data.
        palette: of the data, in the order of names.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]


LIGHT = Theme("#ffffff", "#1a1a1a", "#5c5c5c", "#e3e3e3", COLOURS)
DARK = Theme("#16181d", "#ececec", "#a8adb5", "#33373f", ON_DARK)
_THEME: ContextVar[Theme] = ContextVar("theme", default=LIGHT)


def theme() -> Theme:
    """What is drawn in now."""
    return _THEME.get()


@contextlib.contextmanager
def drawn_in(chosen: Theme) -> Iterator[None]:
    """Draw in another theme within the block."""
    token = _THEME.set(chosen)
    try:
        yield
    finally:
        _THEME.reset(token)


def colours(present: Iterable[str]) -> dict[str, str]:
    """Give each decomposition ``present`` its colour, the same one in every picture of a theme."""
    return of_decompositions(present, theme().palette)


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
    figure = Figure(figsize=(9.6, 5.6), dpi=150, facecolor=theme().paper)
    axes = figure.add_axes((0.075, 0.11, 0.695, 0.735), facecolor=theme().paper)
    figure.text(0.075, 0.945, title, fontsize=13, fontweight="bold", color=theme().ink, parse_math=False)
    figure.text(0.075, 0.893, subtitle, fontsize=9.5, color=theme().muted, parse_math=False)
    axes.grid(color=theme().grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme().muted)
    axes.tick_params(colors=theme().muted, labelsize=9)
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
        labelcolor=theme().ink,
        borderaxespad=0.0,
    )
    legend.get_title().set_color(theme().ink)
    axes.add_artist(legend)
    return legend


def layout(title: str, subtitle: str) -> dict[str, Any]:
    """Return the layout that interactive pictures share."""
    heading = f"<b>{escape(title)}</b><br><span style='font-size:13px;color:{theme().muted}'>{escape(subtitle)}</span>"
    grid = theme().grid
    axis = {"gridcolor": grid, "linecolor": theme().muted, "zeroline": False, "ticks": "outside", "tickcolor": grid}
    return {
        "template": "none",
        "paper_bgcolor": theme().paper,
        "plot_bgcolor": theme().paper,
        "title": {"text": heading, "x": 0.0, "xref": "paper", "xanchor": "left", "y": 0.95, "yanchor": "top"},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": theme().ink},
        "margin": {"l": 70, "r": 30, "t": 95, "b": 60},
        "hoverlabel": {"align": "left", "bgcolor": theme().paper, "font": {"size": 12}},
        "hovermode": "closest",
        "xaxis": axis,
        "yaxis": axis,
    }


def legend_at(title: str, top: float, clickable: bool) -> dict[str, Any]:
    """Return an interactive legend to the right of the plot, its upper edge at ``top``."""
    inert = {} if clickable else {"itemclick": False, "itemdoubleclick": False}
    return {"title": {"text": title}, "x": 1.02, "xanchor": "left", "y": top, "yanchor": "top", **inert}
