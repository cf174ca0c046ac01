"""What `sweep show` prints about a space, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.axis import show

if TYPE_CHECKING:
    from search_spaces.schema import SearchSpace


@dataclass(frozen=True)
class AxisInfo:
    """One axis in words.

    Args:
        name: what is varied.
        values: the values, or the range.
        count: how many values; None: continuous.
        when: the condition, such as ``decomposition = nmf``; empty: always.
    """

    name: str
    values: str
    count: int | None
    when: str


@dataclass(frozen=True)
class SpaceInfo:
    """A search space in words.

    Args:
        name: of the space.
        description: one line.
        baseline: the fields of the original network's configuration that are set.
        algorithm: how it is searched by default.
        objectives: metric -> "max" or "min".
        size: number of grid configurations; None: continuous.
        trials: how many configurations a sweep tries by default.
        fixed: name -> value in words.
        axes: in the file's order.
    """

    name: str
    description: str
    baseline: dict[str, Any]
    algorithm: str
    objectives: dict[str, str]
    size: int | None
    trials: int
    fixed: dict[str, str]
    axes: tuple[AxisInfo, ...]


def describe(space: SearchSpace) -> SpaceInfo:
    """Put ``space`` into words."""
    return SpaceInfo(
        name=space.name,
        description=space.description,
        baseline=space.baseline.model_dump(mode="json", exclude_none=True),
        algorithm=space.search.algorithm,
        objectives={str(metric): str(way) for metric, way in space.search.objectives.items()},
        size=space.size(),
        trials=space.planned(),
        fixed={name: show(value) for name, value in space.fixed.items()},
        axes=tuple(_axis(space, name) for name in space.axes),
    )


def _axis(space: SearchSpace, name: str) -> AxisInfo:
    axis = space.axes[name]
    conditions = space.conditions[name].items()
    when = " and ".join(f"{parent} = {' or '.join(map(show, values))}" for parent, values in conditions)
    return AxisInfo(name, axis.describe(), axis.count, when)
