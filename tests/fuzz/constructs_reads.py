"""Operations over channels: softmax, sorting, statistics; and activations."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct, same

IMAGE = (MAPS, VECTORS)
ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu-in-place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.1),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "celu": nn.CELU(),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "sigmoid": nn.Sigmoid(),
    "log-sigmoid": nn.LogSigmoid(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.5, 0.5),
    "hardshrink": nn.Hardshrink(),
    "softshrink": nn.Softshrink(),
    "threshold": nn.Threshold(0.1, 0.3),
    "rrelu": nn.RReLU(),
}


@construct("activation-module")
def activation(d: Draw, c: int) -> Body:
    names = d.rng.sample(list(ACTIVATIONS), 2)
    first, second = (copy.deepcopy(ACTIVATIONS[name]) for name in names)
    return Body(lambda m, x: m.second(m.layer(m.first(x))), c, layer=d.layer(c, c), first=first, second=second)


FUNCTIONS = [torch.sin, torch.exp, torch.square, torch.abs, torch.cos, torch.neg, torch.erf, torch.sign, torch.log1p]


@construct("activation-function")
def function(d: Draw, c: int) -> Body:
    chosen = d.rng.choice(FUNCTIONS)
    return Body(lambda m, x: chosen(m.layer(x).abs().clamp(max=2)), c, layer=d.layer(c, c))


@construct("dropout")
def dropout(d: Draw, c: int) -> Body:
    drop = nn.Dropout2d(0.2) if d.kind == MAPS else nn.Dropout(0.2)
    return Body(lambda m, x: F.dropout(m.drop(x), 0.1, m.training), c, drop=drop)


same("softmax-channels", lambda m, x: 5 * x.softmax(1), *IMAGE)
same("softmax-tokens-channels", lambda m, x: 5 * F.softmax(x, -1), TOKENS)
same("softmax-2d", lambda m, x: nn.Softmax2d()(x), MAPS)
same("log-softmax-channels", lambda m, x: F.log_softmax(x, 1), *IMAGE)
same("normalize-channels", lambda m, x: F.normalize(x, dim=1), *IMAGE)
same("cumsum-channels", lambda m, x: 0.2 * x.cumsum(1), *IMAGE)
same("sort-channels", lambda m, x: x.sort(dim=1).values, *IMAGE)
same("argsort-gather", lambda m, x: x.gather(1, x.argsort(1)), *IMAGE)
same("mean-of-channels", lambda m, x: x - x.mean(1, keepdim=True), *IMAGE)
same("std-of-channels", lambda m, x: x / (1 + x.std(1, keepdim=True)), *IMAGE)
same("norm-of-channels", lambda m, x: x / (1 + x.norm(dim=1, keepdim=True)), *IMAGE)
same("largest-channel", lambda m, x: F.relu(x - 0.5 * x.amax(1, keepdim=True)), *IMAGE)
same("sum-of-channels", lambda m, x: x * torch.tanh(x.sum(-1, keepdim=True)), TOKENS, VECTORS)
same("logsumexp-channels", lambda m, x: x - x.logsumexp(1, keepdim=True), *IMAGE)
same("argmax-channels", lambda m, x: x * (1 + x.argmax(1, keepdim=True)), *IMAGE)
same("cosine-of-neighbours", lambda m, x: x * F.cosine_similarity(x, x.roll(1, 2), dim=1).unsqueeze(1), MAPS)
same("softmax-places", lambda m, x: x * x.flatten(2).softmax(2).view(x.shape), MAPS)
same("mean-of-places", lambda m, x: x - x.mean((2, 3), keepdim=True), MAPS)
same("cumsum-places", lambda m, x: 0.2 * x.cumsum(3), MAPS)
same("sort-places", lambda m, x: x.sort(dim=2).values, MAPS)
same("mean-of-tokens", lambda m, x: x - x.mean(1, keepdim=True), TOKENS)
same("mean-of-all", lambda m, x: x - x.mean(), *ALL)
same("spatial-attention", lambda m, x: x * torch.sigmoid(torch.stack([x.mean(1), x.amax(1)], 1).sum(1, True)), MAPS)
same("grid-sample", lambda m, x: F.grid_sample(x, x.new_zeros(x.shape[0], 8, 8, 2), align_corners=False) + x, MAPS)


@construct("topk-channels", *IMAGE)
def topk(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x.topk(6, dim=1).values, 6)


@construct("spatial-gate", MAPS)
def spatial_gate(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(m.conv(seen))

    return Body(forward, c, conv=nn.Conv2d(2, 1, 3, padding=1))


@construct("gram-matrix", MAPS)
def gram(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return x + 0.02 * ((flat @ flat.transpose(1, 2)).softmax(-1) @ flat).view(x.shape)

    return Body(forward, c)


@construct("quantised-codes", TOKENS, VECTORS)
def codes(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.book[torch.cdist(x, m.book.expand(x.shape[0], -1, -1) if x.dim() == 3 else m.book).argmin(-1)] + x

    return Body(forward, c, book=d.weights(8, c))
