"""What came of a method on a network, and of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from core.pareto import hypervolume

LEFT = (0.5, 0.25, 0.1)
"""Shares of the parameters that are left."""


@dataclass(frozen=True)
class Row:
    """What came of a method on a network.

    Attributes:
        method: its name.
        kind: whose it is.
        accuracy: percent at each of `LEFT`.
        left: share of the parameters that was really left there.
        seconds: of CPU, of making all of its networks.
        megabytes: the most memory that took.
        reason: why there is nothing of it.
    """

    method: str
    kind: str
    accuracy: tuple[float, ...] = ()
    left: tuple[float, ...] = ()
    seconds: float = math.nan
    megabytes: float = math.nan
    reason: str = ""

    @property
    def volume(self) -> float:
        """Hypervolume of its networks, accuracy against the share of the parameters left."""
        points = zip(self.accuracy, self.left, strict=True)
        return hypervolume([SimpleNamespace(metrics={"accuracy": a, "params_fraction": s}) for a, s in points])


@dataclass(frozen=True)
class Comparison:
    """All rows of a network.

    Attributes:
        net: its name.
        params: how many parameters it has.
        checksum: of its weights.
        accuracy: percent.
        rows: of all methods.
    """

    net: str
    params: int
    checksum: str
    accuracy: float
    rows: Sequence[Row]
