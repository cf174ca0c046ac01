"""The type of a plot and the registry of them: ``get_info(records) -> frozen data``, then ``draw(info)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import plotly.graph_objects as go
from matplotlib.figure import Figure

from core.records import TrialRecord
from core.registry import Registry

Info = TypeVar("Info")
InfoOut = TypeVar("InfoOut", covariant=True)


class GetInfo(Protocol[InfoOut]):
    """Turns records into everything that the picture shows, as frozen data."""

    def __call__(
        self,
        records: Sequence[TrialRecord],
        original: Mapping[str, float],
        *,
        x: str = ...,
        y: str = ...,
        title: str = ...,
    ) -> InfoOut:
        """Build the data.

        Args:
            records: of one sweep, failed ones and those that a race stopped included.
            original: metrics of the original network.
            x: what is on the x axis: params, macs, bytes, latency or any metric. A plot with its own ignores it.
            y: what is on the y axis.
            title: the picture's first line.
        """


class Draw(Protocol):
    """Draws one info for paper: PNG, SVG."""

    def __call__(self, info: Any) -> Figure:
        """Return a figure of its own; no global state is touched."""


class DrawInteractive(Protocol):
    """Draws one info for a browser."""

    def __call__(self, info: Any) -> go.Figure:
        """Return a plotly figure."""


@dataclass(frozen=True)
class Plot(Generic[Info]):
    """One kind of picture.

    Attributes:
        get_info: from records to what the picture shows.
        draw: from that to a figure for paper.
        draw_interactive: from that to a figure for a browser.
    """

    get_info: GetInfo[Info]
    draw: Draw
    draw_interactive: DrawInteractive


PLOTS: Registry[Plot[Any]] = Registry("plot", "dashboards.plots")
register = PLOTS.register
