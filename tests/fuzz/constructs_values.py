"""Sizes used as numbers, values that leave the network, tensors that are no parameters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct, same

IMAGE = (MAPS, VECTORS)


def helper(x: Tensor) -> float:
    """A number that depends on how many channels there are."""
    return 4.0 / x.shape[1]


same("count-as-scale", lambda m, x: x * x.shape[1] ** -0.5, *IMAGE)
same("count-of-last-as-scale", lambda m, x: x / x.size(-1), TOKENS, VECTORS)
same("numel-as-scale", lambda m, x: x * (100 / x.numel()))
same("places-as-scale", lambda m, x: x * (8 / x.shape[2] / x.shape[3]), MAPS)
same("batch-as-scale", lambda m, x: x * x.shape[0] ** 0.5)
same("number-of-a-function", lambda m, x: x * helper(x), *IMAGE)
same("count-in-range", lambda m, x: x + torch.arange(x.shape[1], device=x.device).to(x.dtype) * 0.1, VECTORS)
same("count-in-full", lambda m, x: x + torch.full((x.shape[1], 1, 1), 0.1).to(x.dtype), MAPS)
same("new-ones", lambda m, x: x + x.new_ones(x.shape[1]), VECTORS)
same("ones-like", lambda m, x: x + 0.3 * torch.ones_like(x))
same("eye", lambda m, x: x @ torch.eye(x.shape[-1]).to(x.dtype), TOKENS, VECTORS)
same("triangle", lambda m, x: x @ torch.ones(x.shape[-1], x.shape[-1]).tril().to(x.dtype) * 0.2, VECTORS)
same("floor-division", lambda m, x: x * (x // 0.5))
same("modulo", lambda m, x: x + x % 0.5)
same("equals", lambda m, x: x * (x == 0) + x)
same("compares-with-mean", lambda m, x: x * (x > x.mean()))
same("round", lambda m, x: x + x.round())
same("integer-division-by-count", lambda m, x: x * (64 // x.shape[1]), *IMAGE)
same("isnan", lambda m, x: torch.where(torch.isnan(x), 0.0, x))
same("nan-to-num", lambda m, x: torch.nan_to_num(x) + 0.1)
same("greater-leaves", lambda m, x: (x, x > 0), *ALL)
same("equality-leaves", lambda m, x: (x, x == 0), VECTORS)
same("floor-leaves", lambda m, x: (x, x.floor()), MAPS)
same("activations-leave", lambda m, x: (x, x), *ALL)
same("shape-leaves", lambda m, x: (x, x.shape[1]), *IMAGE)
same("mean-leaves", lambda m, x: (x, x.mean((2, 3))), MAPS)
same("norm-leaves", lambda m, x: (x, x.flatten(1).norm(dim=1)), *ALL)
same("argmax-leaves", lambda m, x: (x, x.argmax(1)), *IMAGE)
same("slice-leaves", lambda m, x: (x, x[:, :2]), *IMAGE)
same("dictionary-leaves", lambda m, x: (x, {"mean": x.mean(), "more": [x.amax((2, 3))]}), MAPS)
same("named-fields-leave", lambda m, x: (x, x.max(1)), VECTORS)


@construct("weight-leaves")
def weight_leaves(d: Draw, c: int) -> Body:
    return Body(lambda m, x: (m.layer(x), m.layer.weight), c, layer=d.layer(c, c))


@construct("penalty-leaves")
def penalty_leaves(d: Draw, c: int) -> Body:
    return Body(lambda m, x: (m.layer(x), m.layer.weight.square().sum()), c, layer=d.layer(c, c))


@construct("plain-tensor")
def plain_tensor(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x * m.scale.to(x), c, scale=(torch.rand(c) + 0.5).view(d.shape(c)))


@construct("plain-tensor-matrix", TOKENS, VECTORS)
def plain_matrix(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x @ m.matrix.to(x.dtype), 8, matrix=torch.randn(c, 8))


class Buffers(Body):
    """A body with buffers, of which some are not part of the state dict."""

    def keep(self, name: str, value: Tensor, persistent: bool) -> Buffers:
        self.register_buffer(name, value, persistent)
        return self


@construct("buffer")
def buffer(d: Draw, c: int) -> Body:
    body = Buffers(lambda m, x: x * m.scale, c)
    return body.keep("scale", (torch.rand(c) + 0.5).view(d.shape(c)), True)


@construct("buffer-outside-state")
def buffer_outside(d: Draw, c: int) -> Body:
    body = Buffers(lambda m, x: x + m.shift, c)
    return body.keep("shift", torch.rand(c).view(d.shape(c)), False)


@construct("buffer-of-indices", *IMAGE)
def indices(d: Draw, c: int) -> Body:
    body = Buffers(lambda m, x: x[:, m.order], c)
    return body.keep("order", torch.randperm(c), True)


@construct("buffer-that-is-written", *IMAGE)
def written(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.seen.mul_(0.9).add_(x.detach().mean([i for i in range(x.dim()) if i != 1]), alpha=0.1)
        return F.relu(x)

    return Buffers(forward, c).keep("seen", torch.zeros(c), True)


@construct("table-of-channels", VECTORS)
def table(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x + m.table(torch.zeros(x.shape[0], dtype=torch.long)), c, table=nn.Embedding(3, c))


@construct("unused-layer")
def unused(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.layer(x)), c, layer=d.layer(c, c), never=d.layer(c, c))


@construct("dead-code")
def dead_code(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.other(x).sum(1)
        return F.relu(m.layer(x))

    return Body(forward, c, layer=d.layer(c, c), other=d.layer(c, c))


@construct("reads-another-weight", TOKENS, VECTORS)
def reads_weight(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.layer(x) + m.layer.weight.mean(1), c, layer=nn.Linear(c, c))


@construct("asks-a-module", MAPS)
def asks_module(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.layer(x))
        return y.view(-1, m.layer.out_channels, 64).view(x.shape) * (8 / m.layer.out_channels)

    return Body(forward, c, layer=nn.Conv2d(c, c, 1))


@construct("number-attribute", *IMAGE)
def number_attribute(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(x).view(x.shape[0], m.count, -1).view(x.shape), c, count=c)
