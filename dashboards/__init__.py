"""Dashboards: pictures, tables and files of a sweep's results, from its records alone."""

from dashboards.base import PLOTS, Plot
from dashboards.front import front_table, write_front_csv, write_front_json
from dashboards.pareto_info import ParetoInfo, get_pareto_info
from dashboards.render import draw_pareto_html, draw_pareto_png, draw_pareto_svg, save_plot

__all__ = [
    "PLOTS",
    "ParetoInfo",
    "Plot",
    "draw_pareto_html",
    "draw_pareto_png",
    "draw_pareto_svg",
    "front_table",
    "get_pareto_info",
    "save_plot",
    "write_front_csv",
    "write_front_json",
]
