"""Several activations become one: sums, products, concatenation, gates, sharing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct, relu_between


def joined(name: str, join: Callable[[Tensor, Tensor], Tensor], *kinds: str, times: int = 1) -> None:
    """The activations joined with those of another layer that reads them."""
    construct(name, *kinds)(
        lambda d, c: Body(lambda m, x: join(F.relu(m.a(x)), m.b(x)), times * c, a=d.layer(c, c), b=d.layer(c, c))
    )


def residual(name: str, join: Callable[[Tensor, Tensor], Tensor], *kinds: str) -> None:
    """The activations joined with what two layers make of them."""

    def make(d: Draw, c: int) -> Body:
        up, down = relu_between(d, c)
        return Body(lambda m, x: join(x, m.down(F.relu(m.up(x)))), c, up=up, down=down)

    construct(name, *kinds)(make)


residual("sum", lambda x, y: x + y)
residual("sum-in-place", lambda x, y: y.add_(x))
residual("sum-alpha", lambda x, y: torch.add(x, y, alpha=-0.5))
residual("difference", lambda x, y: x - y)
residual("difference-alpha", lambda x, y: torch.sub(x, y, alpha=2))
residual("difference-reversed", lambda x, y: torch.rsub(x, y))
residual("lerp", lambda x, y: torch.lerp(x, y, 0.3))
residual("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5))
residual("average", lambda x, y: torch.stack([x, y]).mean(0))
residual("larger-of-stack", lambda x, y: torch.stack([x, y], -1).amax(-1))
joined("product", lambda x, y: x * y)
joined("maximum", torch.maximum)
joined("minimum", lambda x, y: torch.minimum(x, y))
joined("quotient", lambda x, y: x / (1 + y.square()))
joined("hypot", lambda x, y: torch.hypot(x, y))
joined("clamp-between", lambda x, y: torch.clamp(x, y))
joined("clamp-max", lambda x, y: torch.clamp(x, max=y))
joined("pow-tensor", lambda x, y: (x.abs() + 0.5).pow(y))
joined("where", lambda x, y: torch.where(x > y, x, 0.5 * y))
joined("mask", lambda x, y: x * (y > 0))
joined("masked-fill", lambda x, y: x.masked_fill(y < 0, 0.25))
joined("copysign", lambda x, y: torch.copysign(x, y))
joined("remainder", lambda x, y: torch.remainder(x, 1 + y.abs()))
joined("concat", lambda x, y: torch.cat([x, y], 1), MAPS, VECTORS, times=2)
joined("concat-last", lambda x, y: torch.cat((x, y), -1), TOKENS, times=2)
joined("concat-twice", lambda x, y: torch.cat([x, y, x], 1), MAPS, times=3)
joined("concat-after-pool", lambda x, y: torch.cat([x, F.max_pool2d(y, 3, 1, 1)], 1), MAPS, times=2)
joined("outer-gate", lambda x, y: x * y.mean((2, 3), keepdim=True).sigmoid(), MAPS)


@construct("concat-sum", MAPS)
def concat_sum(d: Draw, c: int) -> Body:
    half = c // 2
    parts = {"a": d.layer(c, half), "b": d.layer(c, c - half), "c": d.layer(c, c)}
    return Body(lambda m, x: torch.cat([m.a(x), m.b(x)], 1) + m.c(x), c, **parts)


@construct("halves-read-unequally", MAPS)
def halves(d: Draw, c: int) -> Body:
    """As in C2f: one half goes through residual layers, and all of its stages are read beside both halves."""

    def forward(m: Any, x: Tensor) -> Tensor:
        parts = list(F.relu(m.first(x)).chunk(2, 1))
        for inner in (m.a, m.b):
            parts.append(parts[-1] + F.relu(inner(parts[-1])))
        return m.last(torch.cat(parts, 1))

    inner = {"a": d.layer(8, 8), "b": d.layer(8, 8)}
    return Body(forward, c, first=d.layer(c, 16), last=d.layer(32, c), **inner)


@construct("dense", MAPS)
def dense(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.cat([x, m.a(F.relu(m.na(x)))], 1)
        return torch.cat([x, m.b(F.relu(m.nb(x)))], 1)

    parts = {"na": d.norm(c), "nb": d.norm(c + 8), "a": d.layer(c, 8), "b": d.layer(c + 8, 8)}
    return Body(forward, c + 16, **parts)


@construct("squeeze-excite", MAPS)
def squeeze_excite(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(x, 1)))))

    return Body(forward, c, down=nn.Conv2d(c, 4, 1), up=nn.Conv2d(4, c, 1))


@construct("squeeze-excite-linear", MAPS)
def squeeze_linear(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        gate = F.hardsigmoid(m.up(F.relu(m.down(x.mean((2, 3))))))
        return x * gate.view(gate.shape[0], -1, 1, 1)

    return Body(forward, c, down=nn.Linear(c, 6), up=nn.Linear(6, c))


@construct("glu")
def glu(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.glu(m.layer(x), dim=d.axis), c, layer=d.layer(c, 2 * c))


@construct("glu-module", MAPS, VECTORS)
def glu_module(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.glu(m.layer(x)), c, layer=d.layer(c, 2 * c), glu=nn.GLU(1))


@construct("swiglu", TOKENS, VECTORS)
def swiglu(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.down(F.silu(m.gate(x)) * m.up(x))

    return Body(forward, c, gate=nn.Linear(c, 12), up=nn.Linear(c, 12), down=nn.Linear(12, c))


@construct("shared-module")
def shared_module(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.relu(m.layer(x))
        return x

    return Body(forward, c, layer=d.layer(c, c))


@construct("shared-parameter")
def shared_parameter(d: Draw, c: int) -> Body:
    a, b = nn.Linear(c, c), nn.Linear(c, c)
    b.weight = a.weight

    def forward(m: Any, x: Tensor) -> Tensor:
        x = x.movedim(d.axis, -1)
        return F.relu(m.b(F.relu(m.a(x)))).movedim(-1, d.axis)

    return Body(forward, c, a=a, b=b)


@construct("tied-transposed", TOKENS, VECTORS)
def tied_transposed(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.linear(F.relu(m.e(x)), m.e.weight.t(), m.b), c, e=nn.Linear(c, 12), b=d.weights(c))


@construct("branches-of-one-encoder", MAPS)
def siamese(d: Draw, c: int) -> Body:
    return Body(lambda m, x: torch.cat([F.relu(m.a(x)), F.relu(m.a(x.flip(3)))], 1), 2 * c, a=d.layer(c, c))


@construct("own-scale")
def own_scale(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x + m.gamma * m.layer(x), c, layer=d.layer(c, c), gamma=d.scale(c))


@construct("own-shift")
def own_shift(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.layer(x) - m.shift), c, layer=d.layer(c, c), shift=d.scale(c))


@construct("two-readers", *ALL)
def two_readers(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.a(x)) + F.relu(m.b(F.leaky_relu(x, 0.2))), c, a=d.layer(c, c), b=d.layer(c, c))


@construct("list-of-branches", MAPS, VECTORS)
def branches(d: Draw, c: int) -> Body:
    layers = nn.ModuleList([d.layer(c, 8) for _ in range(3)])
    return Body(lambda m, x: torch.cat([F.relu(layer(x)) for layer in m.layers], 1), 24, layers=layers)


@construct("dictionary-of-branches", *ALL)
def dictionary(d: Draw, c: int) -> Body:
    layers = nn.ModuleDict({"left": d.layer(c, c), "right": d.layer(c, c)})
    return Body(lambda m, x: sum(F.relu(layer(x)) for layer in m.layers.values()), c, layers=layers)
