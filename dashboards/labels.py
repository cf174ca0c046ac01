"""Labels beside points: each is measured, and put where it covers neither another label nor a mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dashboards.style import measuring, theme

Pixels = NDArray[np.float64]

DIRECTIONS = ((-1, 1), (0, 1), (-1, 0), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""Up and to the left first: nothing is better than the front, so that side of it is empty."""

DISTANCES = (8.0, 15.0, 25.0, 38.0, 55.0)
"""From mark to label, in typographic points."""

CLEARANCE = 3.0
"""Pixels kept free between labels."""

MARK = 7.0
"""Pixels kept free around a blocked position: half a mark."""


@dataclass
class _Ground:
    """What is already drawn, in pixels.

    Attributes:
        frame: labels stay inside.
        walls: (n, 2) positions that may not be covered.
        taken: boxes of the labels so far.
    """

    frame: Bbox
    walls: Pixels
    taken: list[Bbox]

    def cost(self, box: Bbox, leader: Pixels) -> float:
        """Count what a label at ``box`` with the line ``leader`` to its mark covers; infinite where it may not be."""
        frame, near = self.frame, box.padded(MARK)
        outside = box.x0 < frame.x0 or frame.x1 < box.x1 or box.y0 < frame.y0 or frame.y1 < box.y1
        collides = any(box.overlaps(other) or _covered(other, leader) for other in self.taken)
        if outside or collides or _covered(near, self.walls):
            return float("inf")
        return len(leader) / 10

    def add(self, box: Bbox, leader: Pixels) -> None:
        """Remember a label that stays."""
        self.taken.append(box)
        self.walls = np.vstack([self.walls, leader])


def place_labels(
    axes: Axes,
    anchors: Sequence[tuple[float, float]],
    texts: Sequence[str],
    blocked: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float]],
) -> list[Annotation]:
    """Write ``texts`` beside ``anchors``; one that fits nowhere inside the axes is left out.

    The axes' limits must be final. Of the free places, the first of the nearest is taken.

    Args:
        axes: where to write.
        anchors: (x, y) of each label's point, in data units.
        texts: one per anchor.
        blocked: positions of lines that no label may cover, in data units.
        marks: positions of points that no label may cover either, in data units.

    Returns:
        The labels that were written.
    """
    renderer = measuring(axes)
    walls = _pixels(axes, [*blocked, *anchors, *marks])
    ground = _Ground(axes.get_window_extent(renderer), walls, [])
    written = []
    for anchor, text in zip(anchors, texts, strict=True):
        label = _write(axes, text, anchor)
        start = _pixels(axes, [anchor])[0]
        places = [(dx, dy, r) for r in DISTANCES for dx, dy in DIRECTIONS]
        boxes = [_move(label, place, renderer) for place in places]
        costs = [ground.cost(box, _leader(start, box)) for box in boxes]
        best = int(np.argmin(costs))
        if costs[best] == np.inf:
            label.remove()
            continue
        box = _move(label, places[best], renderer)
        ground.add(box, _leader(start, box))
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
        color=theme().ink,
        zorder=6,
        parse_math=False,
        arrowprops={"arrowstyle": "-", "color": theme().muted, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        # a patch behind the text, not an outline of its letters, which would turn them into shapes in an SVG
        bbox={"boxstyle": "square,pad=0.1", "facecolor": theme().paper, "edgecolor": "none", "alpha": 0.85},
    )


def _move(label: Annotation, place: tuple[int, int, float], renderer: RendererBase) -> Bbox:
    dx, dy, distance = place
    label.xyann = (dx * distance, dy * distance)
    label.set_horizontalalignment("right" if dx < 0 else "left" if dx else "center")
    label.set_verticalalignment("top" if dy < 0 else "bottom" if dy else "center")
    label.update_positions(renderer)
    return extent(label, renderer).padded(CLEARANCE)


def _leader(start: Pixels, box: Bbox) -> Pixels:
    """Positions 4 pixels apart on the line from the mark at ``start`` to the nearest point of ``box``."""
    end = np.clip(start, box.min, box.max)
    steps = max(2, int(np.hypot(*(end - start)) / 4))
    return np.linspace(start, end, steps)[1:-1]


def _covered(box: Bbox, positions: Pixels) -> int:
    inside = (positions > (box.x0, box.y0)) & (positions < (box.x1, box.y1))
    return int(inside.all(axis=1).sum())


def _pixels(axes: Axes, positions: Sequence[tuple[float, float]]) -> Pixels:
    return np.asarray(axes.transData.transform(np.asarray(positions, dtype=float).reshape(-1, 2)))
