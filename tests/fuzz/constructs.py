"""The registry of constructs: small pieces of networks, each of which does one thing to channels.

A construct is a function ``(draw, width) -> Body``: a module that takes activations of that many channels and returns
activations of ``body.width`` channels, or these and something else that leaves the network. It is made for one or more
kinds of activations: ``maps`` (N, C, H, W), ``tokens`` (N, T, C), ``vectors`` (N, C).
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MAPS, TOKENS, VECTORS = "maps", "tokens", "vectors"
ALL = (MAPS, TOKENS, VECTORS)
PACKS = ("norms", "joins", "moves", "layers", "reads", "attention", "values", "odd")


class Body(nn.Module):
    """A forward pass and what it works with.

    Args:
        function: (body, activations) → activations.
        width: number of channels it returns.
        spoil: done to the body at the very end, when all weights have their values.
        parts: modules, parameters, and plain attributes, by name.
    """

    def __init__(
        self,
        function: Callable[[Any, Tensor], Any],
        width: int,
        spoil: Callable[[Any], object] | None = None,
        **parts: Any,
    ) -> None:
        super().__init__()
        self.function, self.width, self.spoil = function, width, spoil
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


@dataclass(frozen=True)
class Draw:
    """Random choices of one network. Weights come from torch's global generator, which the caller has seeded."""

    rng: random.Random
    kind: str

    @property
    def axis(self) -> int:
        """Where the channels are."""
        return 2 if self.kind == TOKENS else 1

    def layer(self, reads: int, writes: int, **options: Any) -> nn.Module:
        """A convolution or linear layer that leaves all other sizes as they are."""
        if self.kind != MAPS:
            return nn.Linear(reads, writes, **options)
        size = self.rng.choice([1, 3])
        return nn.Conv2d(reads, writes, size, padding=size // 2, **options)

    def norm(self, width: int) -> nn.Module:
        """The usual norm for this kind of activations."""
        return {MAPS: nn.BatchNorm2d, TOKENS: nn.LayerNorm, VECTORS: nn.BatchNorm1d}[self.kind](width)

    def weights(self, *shape: int) -> nn.Parameter:
        """A parameter of a layer's kind: the last axes but the first are what it reads."""
        fan = max(1, torch.Size(shape[1:]).numel())
        return nn.Parameter(torch.randn(shape) / fan**0.5)

    def scale(self, width: int) -> nn.Parameter:
        """One factor per channel, 0.5 … 1.5, to be multiplied with the activations."""
        return nn.Parameter((torch.rand(width) + 0.5).view(self.shape(width)))

    def shape(self, width: int) -> tuple[int, ...]:
        """The shape that broadcasts one number per channel over the activations."""
        return (width, 1, 1) if self.kind == MAPS else (width,)


Maker = Callable[[Draw, int], Body]


@dataclass(frozen=True)
class Construct:
    """One registered construct; no tracer can follow an ``untraceable`` one."""

    name: str
    kinds: tuple[str, ...]
    make: Maker
    untraceable: bool = False


CONSTRUCTS: dict[str, Construct] = {}


def construct(name: str, *kinds: str, untraceable: bool = False) -> Callable[[Maker], Maker]:
    """Register a function that makes a construct."""

    def add(make: Maker) -> Maker:
        assert name not in CONSTRUCTS, name
        CONSTRUCTS[name] = Construct(name, kinds or ALL, make, untraceable)
        return make

    return add


def same(name: str, function: Callable[[Any, Tensor], Any], *kinds: str, **options: bool) -> None:
    """Register a construct without weights that keeps the number of channels."""
    construct(name, *kinds, **options)(lambda d, c: Body(function, c))


def constructs() -> dict[str, Construct]:
    """All constructs by name."""
    for pack in PACKS:
        importlib.import_module(f"tests.fuzz.constructs_{pack}")
    return dict(sorted(CONSTRUCTS.items()))


def relu_between(d: Draw, c: int) -> tuple[nn.Module, nn.Module]:
    """Two layers c → c + 4 → c, for a hidden width between a construct's own ends."""
    return d.layer(c, c + 4), d.layer(c + 4, c)
