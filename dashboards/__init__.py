"""Dashboards: pictures, tables and files of a sweep's results, from its records alone.

What draws is imported when it is first asked for: tables need neither matplotlib nor plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dashboards.front import front_table, write_front_csv, write_front_json, write_fronts_json, write_trials_csv
from dashboards.pareto_info import ParetoInfo, get_pareto_info

if TYPE_CHECKING:
    from dashboards.base import PLOTS, Plot
    from dashboards.render import draw_pareto_html, draw_pareto_png, draw_pareto_svg, save_fronts, save_plot

__all__ = [
    "PLOTS",
    "ParetoInfo",
    "Plot",
    "draw_pareto_html",
    "draw_pareto_png",
    "draw_pareto_svg",
    "front_table",
    "get_pareto_info",
    "save_fronts",
    "save_plot",
    "write_front_csv",
    "write_front_json",
    "write_fronts_json",
    "write_trials_csv",
]
DRAWING = {"PLOTS": "base", "Plot": "base"} | dict.fromkeys(
    ("draw_pareto_html", "draw_pareto_png", "draw_pareto_svg", "save_fronts", "save_plot"), "render"
)
"""Name -> the module that is imported for it."""


def __getattr__(name: str) -> Any:
    if name in DRAWING:
        return getattr(import_module(f"dashboards.{DRAWING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
