"""The data behind the Pareto plot, the front's table and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.config import TrialRecord
from core.errors import UnknownNameError
from core.pareto import hypervolume, pareto_front
from dashboards.points import Point, make_points

SIZES = {
    "params": "parameters",
    "macs": "multiply-accumulates (MACs)",
    "bytes": "bytes of weights",
    "latency": "latency of one image",
}
"""What can stand on the x axis, in words."""

DROPS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""For each of these, the smallest network that loses at most so many points of accuracy is labelled."""


@dataclass(frozen=True)
class ParetoInfo:
    """All that the Pareto plot shows.

    Args:
        title: first line.
        subtitle: counts and hypervolume, in words.
        x: the size compared: params, macs, bytes or latency.
        x_label: of the axis, with unit.
        y_label: of the axis, with unit.
        points: every finished trial, in the records' order.
        front: those that no other dominates, by increasing size.
        labelled: those of the front that get a label, with its text.
        original_accuracy: of the uncompressed network, percent; its x is 1.
        hypervolume: area under the front, fraction × percent; at most 100.
        failed: number of trials that gave no result.
        stopped: number of trials that a race stopped early; they have no accuracy, and nothing here shows them.
        left_out: number of finished trials without the metric on the x axis.
    """

    title: str
    subtitle: str
    x: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    labelled: tuple[tuple[Point, str], ...]
    original_accuracy: float
    hypervolume: float
    failed: int
    stopped: int
    left_out: int


def get_pareto_info(
    records: Sequence[TrialRecord], original: Mapping[str, float], *, x: str = "params", title: str = "Pareto front"
) -> ParetoInfo:
    """Gather what the Pareto plot shows; ``original`` are the metrics of the uncompressed network.

    Raises:
        UnknownNameError: ``x`` is none of params, macs, bytes, latency.
    """
    if x not in SIZES:
        raise UnknownNameError("x axis", x, SIZES)
    metric = f"{x}_fraction"
    points = make_points(records, metric)
    front = tuple(pareto_front(points, metric))
    failed, stopped = (sum(record.status == status for record in records) for status in ("failed", "stopped"))
    left_out = len(records) - failed - stopped - len(points)
    volume = hypervolume(points, metric)
    return ParetoInfo(
        title=title,
        subtitle=_subtitle(x, len(records), failed, stopped, left_out, len(front), volume),
        x=x,
        x_label=f"{SIZES[x]} left (% of the original)",
        y_label="top-1 accuracy (%)",
        points=points,
        front=front,
        labelled=_labelled(front, original["accuracy"]),
        original_accuracy=original["accuracy"],
        hypervolume=volume,
        failed=failed,
        stopped=stopped,
        left_out=left_out,
    )


def _subtitle(x: str, trials: int, failed: int, stopped: int, left_out: int, front: int, volume: float) -> str:
    early = "stopped early" + ", whatever their latency" * (x == "latency")
    counts = ((failed, "failed"), (stopped, early), (left_out, "without this size"))
    asides = [f"{n} {what}" for n, what in counts if n]
    counted = f"{trials} trial{'s' * (trials != 1)}" + (f" ({', '.join(asides)})" if asides else "")
    return f"{counted}, {front} on the front, hypervolume {volume:.2f}" if front else f"{counted}: no front"


def _labelled(front: Sequence[Point], accuracy: float) -> tuple[tuple[Point, str], ...]:
    within = [next((p for p in front if p.accuracy >= accuracy - drop), None) for drop in DROPS]
    chosen = {p.key: p for p in within if p is not None} or {p.key: p for p in front[-1:]}
    return tuple((p, f"{p.accuracy:.1f} % at {100 * p.x:.0f} %") for p in chosen.values())


def step_line(front: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the corners (x in percent, accuracy) of the border that the front draws: to the right, then up."""
    corners: list[tuple[float, float]] = []
    for point in front:
        if corners:
            corners.append((100 * point.x, corners[-1][1]))
        corners.append((100 * point.x, point.accuracy))
    return corners
