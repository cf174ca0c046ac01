"""The channel graph: a traced network, and for every tensor in it which channel each element belongs to."""

from core.graph.labels import ChannelGraph, Layer, Step, build_graph

__all__ = ["ChannelGraph", "Layer", "Step", "build_graph"]
