"""What `sweep show` prints about a space, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.complaints import show
from core.config import BaselineConfig
from search_spaces.axis import Axis
from search_spaces.conditions import Condition


@dataclass(frozen=True)
class AxisInfo:
    """One axis in words.

    Attributes:
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

    Attributes:
        name: of the space.
        description: one line.
        baseline: the fields of the original network's configuration that are set.
        algorithm: how it is searched by default.
        split: what trials are evaluated on.
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
    split: str
    objectives: dict[str, str]
    size: int | None
    trials: int
    fixed: dict[str, str]
    axes: tuple[AxisInfo, ...]


def axis_info(name: str, axis: Axis, condition: Condition) -> AxisInfo:
    """Put one axis into words."""
    when = " and ".join(f"{parent} = {' or '.join(map(show, values))}" for parent, values in condition.items())
    return AxisInfo(name, axis.describe(), axis.count, when)


def baseline_info(config: BaselineConfig) -> dict[str, Any]:
    """The fields of an original network that are set, the network first."""
    fields = config.model_dump(mode="json", exclude_none=True)
    return {"model": config.model, "dataset": config.dataset, **fields}
