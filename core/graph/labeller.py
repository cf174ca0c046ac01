"""Walks a traced network once and writes down, for every tensor, which channel each of its elements belongs to."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from core.graph.labels import profile
from core.graph.rules import label_node
from core.graph.walk import Walk


class Labeller(Walk):
    """Runs the graph on real values and, beside each value, keeps its labels."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and label what it returns."""
        value = super().run_node(n)
        labels = label_node(self, n, value)
        self.labels[n] = labels
        if isinstance(labels, Tensor):
            self.channel_axis[n], self.profiles[n] = profile(labels)
        return value
