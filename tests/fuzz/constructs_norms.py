"""Norms of every kind."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct


class BatchNormAct(nn.BatchNorm2d):
    """A batch norm that calls the function itself and activates behind it."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return F.relu(x)


class FrozenBatchNorm(nn.BatchNorm2d):
    """Stays in eval mode while the network trains, and does not learn."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        return super().train(False)


class OwnRMS(nn.Module):
    """RMS norm as language models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def norm(name: str, make: Any, *kinds: str) -> None:
    construct(name, *kinds)(lambda d, c: Body(lambda m, x: m.norm(x), c, norm=make(c)))


norm("batch-norm", nn.BatchNorm2d, MAPS)
norm("batch-norm-1d", nn.BatchNorm1d, VECTORS)
norm("batch-norm-no-affine", lambda c: nn.BatchNorm2d(c, affine=False), MAPS)
norm("batch-norm-no-statistics", lambda c: nn.BatchNorm2d(c, track_running_stats=False), MAPS)
norm("batch-norm-act", BatchNormAct, MAPS)
norm("batch-norm-frozen", FrozenBatchNorm, MAPS)
norm("batch-norm-sync", nn.SyncBatchNorm, MAPS)
norm("layer-norm", nn.LayerNorm, TOKENS, VECTORS)
norm("layer-norm-no-affine", lambda c: nn.LayerNorm(c, elementwise_affine=False), TOKENS, VECTORS)
norm("layer-norm-maps", lambda c: nn.LayerNorm([c, 8, 8]), MAPS)
norm("layer-norm-2d", torchvision.models.convnext.LayerNorm2d, MAPS)
norm("rms-norm", nn.RMSNorm, TOKENS, VECTORS)
norm("rms-norm-own", OwnRMS, TOKENS, VECTORS)
norm("group-norm", lambda c: nn.GroupNorm(2, c), MAPS, VECTORS)
norm("group-norm-one", lambda c: nn.GroupNorm(1, c), MAPS)
norm("group-norm-each", lambda c: nn.GroupNorm(c, c), MAPS)
norm("instance-norm", nn.InstanceNorm2d, MAPS)
norm("instance-norm-affine", lambda c: nn.InstanceNorm2d(c, affine=True), MAPS)
norm("local-response-norm", lambda c: nn.LocalResponseNorm(3, alpha=0.5), MAPS)


@construct("frozen-batch-norm-buffers", MAPS)
def frozen_buffers(d: Draw, c: int) -> Body:
    frozen = torchvision.ops.FrozenBatchNorm2d(c)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(frozen, name).copy_(torch.rand(c) + 0.5)
    return Body(lambda m, x: m.norm(x), c, norm=frozen)


@construct("layer-norm-literal", TOKENS, VECTORS)
def layer_norm_literal(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.layer_norm(x, (c,)), c)


@construct("layer-norm-function", TOKENS, VECTORS)
def layer_norm_function(d: Draw, c: int) -> Body:
    w, b = nn.Parameter(torch.rand(c) + 0.5), nn.Parameter(torch.randn(c))
    return Body(lambda m, x: F.layer_norm(x, x.shape[-1:], m.w, m.b), c, w=w, b=b)


@construct("layer-norm-last", MAPS)
def layer_norm_last(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), c, norm=nn.LayerNorm(c))


@construct("group-norm-literal", MAPS)
def group_norm_literal(d: Draw, c: int) -> Body:
    w = nn.Parameter(torch.rand(c) + 0.5)
    return Body(lambda m, x: F.group_norm(x, 4, m.w), c, w=w)


@construct("norm-by-hand", *ALL)
def by_hand(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return (x - x.mean(d.axis, keepdim=True)) / (x.var(d.axis, keepdim=True) + 1e-3).sqrt() * m.scale

    return Body(forward, c, scale=d.scale(c))


@construct("batch-norm-flat", MAPS)
def flat(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.norm(x.flatten(1)).view(x.shape), c, norm=nn.BatchNorm1d(c * 64))


@construct("norm-then-relu-then-norm", MAPS)
def twice(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.b(F.relu(m.a(x))), c, a=nn.BatchNorm2d(c), b=nn.BatchNorm2d(c))
