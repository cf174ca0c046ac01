"""Random small networks: ``generate(seed)`` chains two to six constructs, with layers between them and a head behind.

A network of a seed is always the same. The constructs are dealt like cards, a shuffled deck per kind of activations, so
that every one of them occurs equally often in a row of seeds.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Construct, Draw, constructs

KINDS = (MAPS, TOKENS, MAPS, VECTORS)
LENGTHS = (2, 3, 4, 6, 5, 4)
SIDE, LENGTH, VOCABULARY, READS = 8, 6, 11, 5
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    *[nn.ReLU] * 6,
    *(nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.ReLU6, nn.Identity),
)


@dataclass(frozen=True)
class Case:
    """One random network.

    Args:
        seed: makes it.
        names: of its constructs, in order; number i is the network's submodule ``parts.i``.
        model: the network, each of its modules in some mode.
        inputs: the arguments it takes.
        more: further ones of the same kind, to calibrate on.
    """

    seed: int
    names: tuple[str, ...]
    kind: str
    model: nn.Module
    inputs: tuple[Any, ...]
    more: tuple[Any, ...]

    @property
    def untraceable(self) -> bool:
        """Whether no tracer can follow it."""
        return any(name in constructs() and constructs()[name].untraceable for name in self.names)

    def rebuild(self) -> nn.Module:
        """Build the network once more."""
        return generate(self.seed).model


def generate(seed: int) -> Case:
    """Make the network of a seed; no global random state changes."""
    rng = random.Random(f"network {seed}")
    kind, chosen = dealt(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw = Draw(rng, kind)
        net = rng.choice(FORMS[kind])(draw, chosen)
        inputs, more = net.example(draw, 4), net.example(draw, 24)
        settle(net, more)
    train = rng.choice(["eval", "eval", "train", "mixed"])
    net.train(train == "train")
    for module in net.modules():
        if train == "mixed" and rng.random() < 0.3:
            module.training = True
    return Case(seed, tuple(c.name for c in chosen), kind, net, inputs, more)


def dealt(seed: int) -> tuple[str, list[Construct]]:
    """The kind of network that a seed makes, and its constructs."""
    kind = KINDS[seed % len(KINDS)]
    number = seed // len(KINDS) * KINDS.count(kind) + KINDS[: seed % len(KINDS)].count(kind)
    rounds, rest = divmod(number, len(LENGTHS))
    start = rounds * sum(LENGTHS) + sum(LENGTHS[:rest])
    return kind, [constructs()[name] for name in cards(kind, start + LENGTHS[rest])[start:]]


def cards(kind: str, count: int) -> list[str]:
    """The first ``count`` constructs that are dealt to networks of a kind."""
    pile: list[str] = []
    for turn in itertools.count():
        if len(pile) >= count:
            return pile[:count]
        pile += deck(kind, turn)
    raise AssertionError


@functools.cache
def deck(kind: str, turn: int) -> list[str]:
    """A shuffled deck; a construct for several kinds of activations is in the decks of one of them at a time."""
    numbered = enumerate(constructs().items())
    names = [
        name
        for number, (name, found) in numbered
        if kind in found.kinds and (number + turn) % len(found.kinds) == found.kinds.index(kind)
    ]
    random.Random(f"{kind} {turn}").shuffle(names)
    return names


class Network(nn.Module):
    """Stem, then layer and construct in turn, then a head; one tensor in, and one out where no construct gives more."""

    def __init__(self, draw: Draw, chosen: list[Construct]) -> None:
        super().__init__()
        rng, width = draw.rng, 8
        self.kind = draw.kind
        self.stem = self.first(draw, width)
        layers, parts = [], []
        for construct in chosen:
            writes = rng.choice([8, 8, 12, 16])
            layers.append(block(draw, width, writes))
            body: Body = construct.make(draw, writes)
            parts.append(body)
            width = body.width
        self.layers, self.parts = nn.ModuleList(layers), nn.ModuleList(parts)
        self.last = block(draw, width, 8)
        self.flat = draw.kind == MAPS and rng.random() < 0.5
        self.head = self.final(8 * 4 if self.flat else 8, 1 if rng.random() < 0.15 else 4)

    def first(self, draw: Draw, width: int) -> nn.Module:
        return nn.Conv2d(3, width, 3, padding=1) if draw.kind == MAPS else nn.Linear(READS, width)

    def final(self, width: int, outputs: int) -> nn.Module:
        return nn.Linear(width, outputs)

    def example(self, draw: Draw, count: int) -> tuple[Any, ...]:
        """``count`` random inputs."""
        return (self.data(count),)

    def data(self, count: int) -> Tensor:
        shape = {MAPS: (3, SIDE, SIDE), TOKENS: (LENGTH, READS), VECTORS: (READS,)}[self.kind]
        return torch.randn(count, *shape)

    def body(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        extras = []
        for layer, part in zip(self.layers, self.parts, strict=True):
            y = part(layer(x))
            if isinstance(y, tuple):
                x = y[0]
                extras.append(y[1])
            else:
                x = y
        return self.last(x), extras

    def pooled(self, x: Tensor) -> Tensor:
        if self.kind == MAPS:
            return F.adaptive_avg_pool2d(x, 2).flatten(1) if self.flat else x.mean((2, 3))
        return x.mean(1) if self.kind == TOKENS else x

    def forward(self, x: Tensor) -> Any:
        x, extras = self.body(self.stem(x))
        y = self.head(self.pooled(x))
        return (y, *extras) if extras else y


def block(draw: Draw, reads: int, writes: int) -> nn.Sequential:
    """A layer, often a norm, and an activation."""
    norm = [draw.norm(writes)] if draw.rng.random() < 0.5 and draw.kind != TOKENS else []
    return nn.Sequential(draw.layer(reads, writes), *norm, draw.rng.choice(ACTIVATIONS)())


class TwoInputs(Network):
    """Its second argument has a stem of its own, whose channels are added."""

    def __init__(self, draw: Draw, chosen: list[Construct]) -> None:
        super().__init__(draw, chosen)
        self.second = nn.Linear(4, 8)

    def example(self, draw: Draw, count: int) -> tuple[Any, ...]:
        return self.data(count), torch.randn(count, 4)

    def forward(self, x: Tensor, vector: Tensor) -> Any:  # type: ignore[override]
        other = self.second(vector)
        x = self.stem(x) + (other[:, :, None, None] if self.kind == MAPS else other)
        x, extras = self.body(F.relu(x))
        return {"logits": self.head(self.pooled(x)), "extras": extras}


class TwoVectors(TwoInputs):
    """`TwoInputs` of vectors."""


class TwoTokens(TwoInputs):
    """`TwoInputs` of tokens and a vector for all of them."""

    def forward(self, x: Tensor, vector: Tensor) -> Any:  # type: ignore[override]
        x, extras = self.body(F.relu(self.stem(x) + self.second(vector).unsqueeze(1)))
        return {"logits": self.head(self.pooled(x)), "extras": extras}


class UnusedInput(Network):
    """It ignores its second argument, and has one that nobody gives."""

    def example(self, draw: Draw, count: int) -> tuple[Any, ...]:
        return self.data(count), torch.randn(count, 2)

    def forward(  # type: ignore[override]
        self, x: Tensor, ignored: Tensor, scale: Tensor | None = None
    ) -> Any:
        x, extras = self.body(self.stem(x))
        y = self.head(self.pooled(x))
        if scale is not None:
            y = y * scale
        return [y, extras]


class Features(Network):
    """It returns what lies before the head as well."""

    def forward(self, x: Tensor) -> Any:
        x, extras = self.body(self.stem(x))
        x = self.pooled(x)
        return self.head(x), {"features": x, "more": (extras,)}


class Keywords(Network):
    """It has keyword arguments with defaults."""

    def forward(self, x: Tensor, *, times: float = 1.5, normed: bool = False) -> Any:
        x, extras = self.body(self.stem(x) * times)
        y = self.head(F.normalize(self.pooled(x)) if normed else self.pooled(x))
        return (y, *extras) if extras else y


class Words(Network):
    """An embedding whose weight is the head's, as in language models."""

    def first(self, draw: Draw, width: int) -> nn.Module:
        return nn.Embedding(VOCABULARY, width)

    def final(self, width: int, outputs: int) -> nn.Module:
        head = nn.Linear(width, VOCABULARY, bias=False)
        head.weight = self.stem.weight  # type: ignore[assignment]
        return head

    def example(self, draw: Draw, count: int) -> tuple[Any, ...]:
        return (torch.randint(0, VOCABULARY, (count, LENGTH)),)

    def forward(self, x: Tensor) -> Any:
        x, extras = self.body(self.stem(x))
        return (self.head(x), *extras)


class Reconstructs(Network):
    """It returns to the input by the stem's own weight, transposed."""

    def forward(self, x: Tensor) -> Any:
        z = self.stem(x)
        y, extras = self.body(F.relu(z))
        return self.head(self.pooled(y)), F.linear(z, self.stem.weight.t()), extras


FORMS: dict[str, tuple[type[Network], ...]] = {
    MAPS: (*[Network] * 5, TwoInputs, UnusedInput, Features, Keywords),
    TOKENS: (*[Network] * 4, TwoTokens, UnusedInput, Features, Keywords, Words, Reconstructs),
    VECTORS: (*[Network] * 4, TwoVectors, UnusedInput, Features, Keywords, Reconstructs),
}
assert FORMS.keys() == set(ALL)


def repeated(values: Tensor) -> Tensor:
    """Where a number stands that occurs elsewhere too."""
    _, number, counts = values.unique(return_inverse=True, return_counts=True)
    return counts[number] > 1


def settle(net: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Give every parameter values that are all different, and batch norms the statistics of ``inputs``."""
    for name, parameter in net.named_parameters():
        if len(parameter.unique()) < parameter.numel() / 2:
            scale = name.endswith("weight") or "original" in name
            parameter.data = torch.rand_like(parameter) + 0.5 if scale else 0.2 * torch.randn_like(parameter)
        while bool((twice := repeated(parameter.data)).any()):
            parameter.data[twice] += 0.01 * torch.randn(int(twice.sum()))
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    net.eval()
    for norm in norms:
        norm.running_mean, norm.running_var = 0.3 * torch.randn(norm.num_features), torch.rand(norm.num_features) + 0.5
        norm.reset_running_stats()
        norm.momentum, norm.training = None, not isinstance(norm, nn.SyncBatchNorm)
    with torch.no_grad():
        net(*inputs)
    for norm in norms:
        norm.momentum = 0.1
    for module in net.modules():
        if isinstance(module, Body) and module.spoil is not None:
            module.spoil(module)
    net.eval()
