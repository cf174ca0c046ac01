"""From a figure to a file: PNG and SVG for paper, HTML for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import plotly.graph_objects as go
import plotly.io
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from core.errors import UnknownNameError
from core.files import writing
from dashboards.base import Plot
from dashboards.pareto_info import ParetoInfo
from dashboards.plots.fronts import TITLE as FRONTS
from dashboards.plots.fronts import draw_fronts, draw_fronts_interactive
from dashboards.plots.pareto import draw as draw_pareto
from dashboards.plots.pareto import draw_interactive as draw_pareto_interactive
from dashboards.style import theme

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>html, body {{ height: 100%; margin: 0; background: {paper}; }} body {{ min-height: 480px; }}</style></head>
<body>
{figure}
</body>
</html>
"""

FORMATS = ("png", "svg", "html")
DPI = 150
EDITABLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "neuron-merging-sweep"}
"""Texts of an SVG are texts, and the names of its parts are the same every time."""


def save_plot(plot: Plot[Any], info: Any, path: str | Path, dpi: int = DPI) -> Path:
    """Draw ``info`` as the format that the ending of ``path`` names, and write it; ``dpi`` are a PNG's dots per inch.

    Raises:
        UnknownNameError: the ending is none of png, svg, html.
        UsageError: the file cannot be written.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".png":
            return save_png(plot.draw(info), path, dpi)
        case ".svg":
            return save_svg(plot.draw(info), path)
        case ".html":
            return save_html(plot.draw_interactive(info), path, info.title)
    raise UnknownNameError("picture format", path.suffix.removeprefix("."), FORMATS)


def save_fronts(infos: Sequence[ParetoInfo], path: Path, dpi: int = DPI) -> Path:
    """Draw several sweeps' fronts as the format that the ending of ``path`` names; see `save_plot`.

    Raises:
        UnknownNameError: the ending is none of png, svg, html.
        UsageError: the file cannot be written.
    """
    match path.suffix.lower():
        case ".png":
            return save_png(draw_fronts(infos), path, dpi)
        case ".svg":
            return save_svg(draw_fronts(infos), path)
        case ".html":
            return save_html(draw_fronts_interactive(infos), path, FRONTS)
    raise UnknownNameError("picture format", path.suffix.removeprefix("."), FORMATS)


def save_png(figure: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write a PNG with so many dots per inch; the figure is 9.6 by 5.6 inches."""
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    with writing(Path(path)) as temporary:
        canvas.print_png(temporary)
    return Path(path)


def save_svg(figure: Figure, path: str | Path) -> Path:
    """Write an SVG whose texts are texts; without a date, so that the same data give the same picture."""
    canvas: Any = FigureCanvasSVG(figure)
    with writing(Path(path)) as temporary, mpl.rc_context(EDITABLE):
        canvas.print_svg(temporary, metadata={"Date": None})
    return Path(path)


def save_html(figure: go.Figure, path: str | Path, title: str) -> Path:
    """Write one HTML file that holds everything it needs and works offline."""
    body = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=True,
        default_height="100vh",
        config={"displaylogo": False, "responsive": True},
    )
    with writing(Path(path)) as temporary:
        temporary.write_text(PAGE.format(title=escape(title), figure=body, paper=theme().paper), encoding="utf-8")
    return Path(path)


def draw_pareto_png(info: ParetoInfo, path: str | Path) -> Path:
    """Write the Pareto plot as PNG; see `save_png`."""
    return save_png(draw_pareto(info), path)


def draw_pareto_svg(info: ParetoInfo, path: str | Path) -> Path:
    """Write the Pareto plot as SVG; see `save_svg`."""
    return save_svg(draw_pareto(info), path)


def draw_pareto_html(info: ParetoInfo, path: str | Path) -> Path:
    """Write the interactive Pareto plot; see `save_html`."""
    return save_html(draw_pareto_interactive(info), path, info.title)
