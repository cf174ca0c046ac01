"""The front drawn with letters, for a terminal."""

from __future__ import annotations

import math

from dashboards.pareto_info import ParetoInfo

TRIAL, MEMBER, ORIGINAL, BELOW = ".", "o", "*", "v"
LEAST_SPAN = 2.0
"""Units of the y axis that are shown at least."""


def front_picture(info: ParetoInfo, width: int = 72, height: int = 12) -> list[str]:
    """Lines of a plot: trials as dots, those on the front as circles, the original network as a star.

    The y axis begins a little below the lowest of the front's better half; members below it are a v on the border.

    Args:
        info: what the plot shows.
        width: characters of a line, with the axis.
        height: lines of the plot, without the axis.
    """
    if not info.front:
        return []
    places = [info.place(p.x, p.y) for p in info.points]
    front = [info.place(p.x, p.y) for p in info.front]
    original = [info.original_place] if all(map(math.isfinite, info.original_place)) else []
    ys = [y for _, y in [*places, *original]]
    low, high = y_range([y for _, y in front], ys) if info.y_metric.unit == "%" else (min(ys), max(ys) + 1e-9)
    xs = [x for x, _ in [*places, *original]]
    left, right = min(0.0, *xs), max(xs)
    digits = 1 if info.y_metric.unit == "%" else 3
    margin = max(len(f"{low:.{digits}f}"), len(f"{high:.{digits}f}")) + 1
    inside = max(20, width - margin - 1)
    grid = [[" "] * inside for _ in range(height)]
    for mark, marked in ((TRIAL, places), (MEMBER, front), (ORIGINAL, original)):
        for x, y in marked:
            if y < low and mark == TRIAL:
                continue
            column = round((x - left) / ((right - left) or 1.0) * (inside - 1))
            row = round((high - max(low, min(high, y))) / (high - low) * (height - 1))
            grid[row][column] = BELOW if y < low else mark
    heads = {0: f"{high:.{digits}f}", height - 1: f"{low:.{digits}f}"}
    lines = [f"{heads.get(row, ''):>{margin}}|{''.join(cells)}".rstrip() for row, cells in enumerate(grid)]
    ends = f"{left:.4g}", f"{right:.4g}"
    axis = ends[0] + info.x_label.center(inside - len(ends[0]) - len(ends[1])) + ends[1]
    return [info.y_label, *lines, " " * margin + "+" + "-" * inside, " " * (margin + 1) + axis]


def y_range(front: list[float], everything: list[float]) -> tuple[float, float]:
    """Where people choose: from a little below the front's better half to the best of all."""
    high = max(everything)
    low = min(sorted(front)[len(front) // 2 :])
    span = max(high - low, LEAST_SPAN)
    return high - 1.6 * span, high
