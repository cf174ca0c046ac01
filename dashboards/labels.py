"""Labels beside points: each is measured, and put where it covers neither another label nor a mark."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dashboards.style import INK, MUTED, measuring

Pixels = NDArray[np.float64]

DIRECTIONS = ((-1, 1), (0, 1), (-1, 0), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""Up and to the left first: nothing is better than the front, so that side of it is empty."""

DISTANCES = (8.0, 15.0, 25.0, 38.0)
"""From mark to label, in typographic points."""

CLEARANCE = 3.0
"""Pixels kept free around a label."""


def place_labels(
    axes: Axes,
    anchors: Sequence[tuple[float, float]],
    texts: Sequence[str],
    blocked: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float]],
) -> list[Annotation]:
    """Write ``texts`` beside ``anchors``; one that fits nowhere inside the axes is left out.

    The axes' limits must be final. Of the free places, the first that covers the fewest ``marks`` is taken.

    Args:
        axes: where to write.
        anchors: (x, y) of each label's point, in data units.
        texts: one per anchor.
        blocked: positions that no label may cover, in data units.
        marks: positions that labels had better not cover, in data units.

    Returns:
        The labels that were written.
    """
    renderer = measuring(axes)
    walls, soft = _pixels(axes, [*blocked, *anchors]), _pixels(axes, marks)
    frame, taken = axes.get_window_extent(renderer), list[Bbox]()
    written = []
    for anchor, text in zip(anchors, texts, strict=True):
        label = _write(axes, text, anchor)
        places = [(dx, dy, r) for r in DISTANCES for dx, dy in DIRECTIONS]
        costs = [_cost(_move(label, place, renderer), frame, taken, walls, soft) for place in places]
        if min(costs) == np.inf:
            label.remove()
            continue
        taken.append(_move(label, places[int(np.argmin(costs))], renderer))
        written.append(label)
    return written


def extent(label: Text, renderer: RendererBase) -> Bbox:
    """Return the box of a label's text in pixels, without the line to its mark."""
    return Text.get_window_extent(label, renderer)


def _write(axes: Axes, text: str, anchor: tuple[float, float]) -> Annotation:
    return axes.annotate(
        text,
        anchor,
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=8.5,
        color=INK,
        zorder=6,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        path_effects=[effects.withStroke(linewidth=2.5, foreground="white")],
    )


def _move(label: Annotation, place: tuple[int, int, float], renderer: RendererBase) -> Bbox:
    dx, dy, distance = place
    label.xyann = (dx * distance, dy * distance)
    label.set_horizontalalignment("right" if dx < 0 else "left" if dx else "center")
    label.set_verticalalignment("top" if dy < 0 else "bottom" if dy else "center")
    label.update_positions(renderer)
    return extent(label, renderer).padded(CLEARANCE)


def _cost(box: Bbox, frame: Bbox, taken: list[Bbox], walls: Pixels, soft: Pixels) -> float:
    """Count the ``soft`` positions under ``box``; infinite where it may not be."""
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    if not inside or any(box.overlaps(other) for other in taken) or _covered(box, walls):
        return float("inf")
    return float(_covered(box, soft))


def _covered(box: Bbox, positions: Pixels) -> int:
    inside = (positions > (box.x0, box.y0)) & (positions < (box.x1, box.y1))
    return int(inside.all(axis=1).sum())


def _pixels(axes: Axes, positions: Sequence[tuple[float, float]]) -> Pixels:
    return np.asarray(axes.transData.transform(np.asarray(positions, dtype=float).reshape(-1, 2)))
