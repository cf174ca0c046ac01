"""The nouns of a channel graph: layers, steps, and the operations that steps may repeat on other values.

None of them holds a value that ran through the network, so a finished graph keeps no activation alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, fx, nn

LayerKind = Literal["conv", "linear", "conv-transpose", "matmul"]

StepKind = Literal[
    "layer",
    "parameter",
    "pairs",
    "batch-norm",
    "norm",
    "depthwise",
    "activation",
    "prelu",
    "pool",
    "move",
    "concat",
    "add",
    "mul",
    "parameter-add",
    "parameter-mul",
]

LAYER_KINDS: frozenset[LayerKind] = frozenset({"conv", "linear", "conv-transpose"})

SOURCES: frozenset[StepKind] = frozenset({"layer", "parameter", "pairs"})
"""Steps whose output has channels of its own, or none; all others are channel-wise."""

SINGLE: frozenset[StepKind] = frozenset({"activation", "move", "pool"})
"""Channel-wise steps on one tensor, without parameters."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: it reads channels through one axis of its weight and writes through another.

    Attributes:
        name: the module's, or the weight's without ".weight".
        kind: what it computes.
        weight: parameter name of (out, in, …), for ``conv-transpose`` and ``matmul`` (in, out, …).
        bias: parameter name; a module without bias still names the one it would have, and a function of parameters
            that takes none has the name "".
        groups: of a grouped convolution.
        stride: of a ``conv-transpose``, the product over its axes.
    """

    name: str
    kind: LayerKind
    weight: str
    bias: str
    groups: int = 1
    stride: int = 1

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer, or a product with a parameter."""
        return self.kind in ("linear", "matmul")

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.kind == "conv-transpose"

    @property
    def write_axis(self) -> int:
        """Axis of the weight that holds the out-channels."""
        return 1 if self.kind in ("conv-transpose", "matmul") else 0

    @property
    def read_axis(self) -> int:
        """Axis of the weight that holds the in-channels (of one group)."""
        return 1 - self.write_axis


@dataclass(frozen=True)
class Operation:
    """What a node computes, so that it can be repeated on another tensor.

    Attributes:
        node: where it stands in the graph.
        op: the operation's name.
        args: as the node has them, nodes included.
        kwargs: likewise.
        module: the module that is called, if one is.
        slope: the one slope of a PReLU.
    """

    node: fx.Node
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    module: nn.Module | None = None
    slope: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether `apply` can run the operation: all arguments but the first are constants."""
        return self.slope is not None or len(self.node.all_input_nodes) == 1

    def apply(self, x: Tensor) -> Tensor:
        """Run the operation, with its constant arguments, on another tensor."""
        result: Tensor
        if self.slope is not None:
            result = F.leaky_relu(x, self.slope)
        elif self.module is not None:
            result = self.module(x)
        elif self.node.op == "call_method":
            result = getattr(x, self.op)(*self.args[1:], **self.kwargs)
        else:
            constants = [x if isinstance(a, fx.Node) else a for a in self.args]
            target: Any = self.node.target
            result = target(*constants, **{k: v for k, v in self.kwargs.items() if k not in ("inplace", "input")})
        return result


@dataclass(frozen=True)
class Step:
    """What one graph node does to the channels that pass through it.

    Attributes:
        node: the node.
        kind: ``layer`` reads channels and writes others, ``parameter`` is one that is read as data, ``pairs``
            multiplies queries with keys; every other kind is channel-wise.
        inputs: the nodes whose channels pass.
        op: the operation's name.
        parameters: what the operation calls them -> parameter name.
        layer: of a ``layer`` or ``depthwise`` step.
        operation: of an ``activation``, to be repeated on other values.
        options: numbers and words that the kind needs.
    """

    node: fx.Node
    kind: StepKind
    inputs: tuple[fx.Node, ...]
    op: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    layer: Layer | None = None
    operation: Operation | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channel_wise(self) -> bool:
        """Whether each channel of the output is computed from the same channel of the inputs."""
        return self.kind not in SOURCES

    @property
    def single(self) -> bool:
        """Whether it is a channel-wise step on one tensor, without parameters."""
        return self.kind in SINGLE

    @property
    def mixer(self) -> Layer | None:
        """The layer that reads all channels of its input and writes others; None of a channel-wise step."""
        return self.layer if self.kind == "layer" else None
