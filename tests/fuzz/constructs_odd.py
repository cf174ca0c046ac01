"""What surrounds a computation: hooks, counters, random numbers, training branches, misleading names, dead channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct, relu_between, same

IMAGE = (MAPS, VECTORS)


def relu(x: Tensor) -> Tensor:
    """Not what its name says."""
    return torch.roll(x, 1, 1)


def dropout(x: Tensor) -> Tensor:
    """Not what its name says either."""
    return F.relu(x - x.mean(1, keepdim=True))


def opaque(x: Tensor) -> Tensor:
    """Control flow that no tracer sees."""
    return F.relu(x) if float(x.detach().sum()) != 0.123 else x


fx.wrap("relu")
fx.wrap("dropout")
fx.wrap("opaque")


def flipped(module: nn.Module, args: Any, y: Tensor) -> Tensor:
    return y.flip(1)


def halved(module: nn.Module, args: Any, y: Tensor) -> Tensor:
    return y / 2


def moved(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].roll(1, 1),)


def remembered(module: nn.Module, args: Any, y: Tensor) -> None:
    module.seen = y.detach().mean()


same("wrapped-named-relu", lambda m, x: relu(x), *IMAGE)
same("wrapped-named-dropout", lambda m, x: dropout(x), *IMAGE)
same("wrapped", lambda m, x: opaque(x))
same("rand", lambda m, x: x * (0.5 + torch.rand(1).to(x.dtype)))
same("rand-per-row", lambda m, x: x + torch.rand(x.shape[0], 1, 1, 1).to(x.dtype), MAPS)
same("rand-like", lambda m, x: x + 0.1 * torch.rand_like(x))
same("in-place", lambda m, x: F.relu_(x).mul_(1.5))
same("needs-export", lambda m, x: F.relu(x) if x.shape[-1] > 3 else x)
same("branch-on-value", lambda m, x: F.relu(x) if bool(x.sum() > 0) else x, untraceable=True)


@construct("in-place-slice", *IMAGE)
def in_place_slice(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(x).clone()
        y[:, :2] = 0.5
        return y

    return Body(forward, c)


def hooked(name: str, *kinds: str, before: Any = None, after: Any = None) -> None:
    def make(d: Draw, c: int) -> Body:
        layer = d.layer(c, c)
        if before is not None:
            layer.register_forward_pre_hook(before)
        if after is not None:
            layer.register_forward_hook(after)
        return Body(lambda m, x: F.relu(m.layer(x)), c, layer=layer)

    construct(name, *kinds)(make)


hooked("hook-that-flips", *IMAGE, after=flipped)
hooked("hook-that-halves", after=halved)
hooked("hook-that-moves-inputs", *IMAGE, before=moved)
hooked("hook-that-remembers", after=remembered)


@construct("hook-on-a-block", *IMAGE)
def hook_on_block(d: Draw, c: int) -> Body:
    block = nn.Sequential(d.layer(c, c), nn.ReLU())
    block.register_forward_hook(flipped)
    return Body(lambda m, x: m.block(x), c, block=block)


@construct("counter")
def counter(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.calls += 1
        return F.relu(m.layer(x))

    return Body(forward, c, layer=d.layer(c, c), calls=0)


@construct("training-branch")
def training_branch(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Any:
        y = F.relu(m.layer(x))
        return (y, m.head(F.relu(m.aux(y)))) if m.training else y

    return Body(forward, c, layer=d.layer(c, c), aux=d.layer(c, c), head=d.layer(c, 3))


@construct("training-noise", MAPS)
def training_noise(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.layer(x)
        return F.relu(y + torch.randn(c, 1, 1).to(y.dtype) * 0.1 if m.training else y)

    return Body(forward, c, layer=d.layer(c, c))


@construct("checkpointed")
def checkpointed(d: Draw, c: int) -> Body:
    up, down = relu_between(d, c)
    block = nn.Sequential(up, nn.ReLU(), down)
    return Body(lambda m, x: x + checkpoint(m.block, x, use_reentrant=False), c, block=block)


def spoiled(name: str, spoil: Any) -> None:
    """Two layers; ``spoil`` does something to rows of the first."""

    def make(d: Draw, c: int) -> Body:
        up, down = relu_between(d, c)
        return Body(lambda m, x: F.relu(m.down(F.relu(m.up(x)))), c, spoil=spoil, up=up, down=down)

    construct(name)(make)


@torch.no_grad()
def dead(m: Any) -> None:
    m.up.weight[1], m.up.bias[1] = 0, 0


@torch.no_grad()
def never_fires(m: Any) -> None:
    m.up.bias[1] = -100


@torch.no_grad()
def constant(m: Any) -> None:
    m.up.weight[1], m.up.bias[1] = 0, 0.7


@torch.no_grad()
def halves(m: Any) -> None:
    for i in range(1, len(m.up.weight), 2):
        m.up.weight[i], m.up.bias[i] = m.up.weight[i - 1] / 2, m.up.bias[i - 1] / 2


@torch.no_grad()
def unread(m: Any) -> None:
    m.down.weight[:, 1] = 0


@torch.no_grad()
def huge(m: Any) -> None:
    m.up.weight[1] *= 1e4
    m.down.weight[:, 1] /= 1e4


spoiled("dead-channel", dead)
spoiled("never-fires", never_fires)
spoiled("constant-channel", constant)
spoiled("half-twins", halves)
spoiled("unread-channel", unread)
spoiled("huge-channel", huge)


@construct("frozen-layer", *ALL)
def frozen(d: Draw, c: int) -> Body:
    layer = d.layer(c, c)
    layer.requires_grad_(False)
    return Body(lambda m, x: F.relu(m.layer(x)), c, layer=layer)


@construct("no-bias")
def no_bias(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.b(F.relu(m.a(x))), c, a=d.layer(c, c, bias=False), b=d.layer(c, c, bias=False))


@construct("single-channel")
def single(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x + m.b(F.relu(m.a(x))), c, a=d.layer(c, 1), b=d.layer(1, c))


@construct("keyword-call", MAPS)
def keyword_call(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(input=m.layer(input=x)), c, layer=d.layer(c, c))


@construct("stochastic-depth", MAPS)
def stochastic(d: Draw, c: int) -> Body:
    from torchvision.ops import StochasticDepth

    return Body(lambda m, x: x + m.drop(m.layer(x)), c, layer=d.layer(c, c), drop=StochasticDepth(0.2, "row"))


@construct("layer-used-and-read", TOKENS)
def used_and_read(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.layer(x) + F.linear(x, m.layer.weight).relu(), c, layer=nn.Linear(c, c))
