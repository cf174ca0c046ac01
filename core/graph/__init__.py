"""The channel graph: a traced network, and for every tensor in it which channel each element belongs to."""

from core.graph.build import ChannelGraph, build_graph
from core.graph.nodes import Layer, Step

__all__ = ["ChannelGraph", "Layer", "Step", "build_graph"]
