"""Channels are moved, split, repeated, padded and reshaped, with sizes asked for and sizes written down."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import MAPS, TOKENS, VECTORS, Body, Draw, construct, same

IMAGE = (MAPS, VECTORS)


def shuffle_by_view(m: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffle_by_rearranging(m: Any, x: Tensor) -> Tensor:
    return x.unflatten(1, (4, -1)).permute(0, 2, 1, 3, 4).flatten(1, 2)


def swap_halves(m: Any, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat([b, a], 1)


same("shuffle-module", lambda m, x: nn.ChannelShuffle(2)(x), MAPS)
same("shuffle-function", lambda m, x: F.channel_shuffle(x, 4), MAPS)
same("shuffle-by-view", shuffle_by_view, MAPS)
same("shuffle-by-unflatten", shuffle_by_rearranging, MAPS)
same("swap-halves", swap_halves, *IMAGE)
same("flip", lambda m, x: x.flip(1), *IMAGE)
same("roll", lambda m, x: torch.roll(x, 1, 1), *IMAGE)
same("pixel-down-up", lambda m, x: F.pixel_shuffle(F.relu(F.pixel_unshuffle(x, 2)), 2), MAPS)
same("squeeze-no-dim", lambda m, x: F.relu(x.unsqueeze(0).squeeze()))
same("permute-and-back", lambda m, x: F.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), MAPS)
same("matrix-transpose", lambda m, x: F.relu(x.mT).mT, TOKENS)
same("big-t", lambda m, x: F.relu(x.T).T, VECTORS)
same("data-attribute", lambda m, x: x * x.data.sigmoid())
same("detach", lambda m, x: x + x.detach() * 0.5)
same("contiguous-clone", lambda m, x: F.relu(x.clone().contiguous()))
same("negative-index-slice", lambda m, x: torch.cat([x[:, -3:], x[:, :-3]], 1), *IMAGE)
same("swap-axes", lambda m, x: F.relu(x.swapaxes(1, 2)).swapaxes(2, 1), TOKENS, MAPS)
same("strided-slices", lambda m, x: torch.cat([x[:, ::2], x[:, 1::2]], 1), *IMAGE)
same("unbind-stack", lambda m, x: torch.stack(list(reversed(x.unbind(1))), 1), MAPS)
same("zero-pad-spatial", lambda m, x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1], MAPS)
same("upsample", lambda m, x: F.max_pool2d(F.interpolate(x, scale_factor=2, mode="bilinear"), 2), MAPS)
same("upsample-module", lambda m, x: F.avg_pool2d(nn.Upsample(scale_factor=2)(x), 2), MAPS)
same("pools", lambda m, x: F.max_pool2d(x, 3, 1, 1) + F.avg_pool2d(x, 3, 1, 1), MAPS)
same("lp-pool", lambda m, x: F.interpolate(F.lp_pool2d(x.abs() + 0.1, 2, 2), size=8), MAPS)
same("unfold-fold", lambda m, x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2), MAPS)
same("as-strided", lambda m, x: x.contiguous().as_strided(x.size(), x.contiguous().stride()) * 1.0)
same("type-as", lambda m, x: F.relu(x.type_as(x).to(x.dtype)))
same("tile-and-take", lambda m, x: x.repeat(1, 2)[:, : x.shape[1]], VECTORS)


def wider(name: str, function: Any, width: Any, *kinds: str) -> None:
    construct(name, *kinds)(lambda d, c: Body(function, width(c)))


wider("slice", lambda m, x: x[:, : x.shape[1] // 2], lambda c: c // 2, *IMAGE)
wider("slice-literal", lambda m, x: x[:, 2:], lambda c: c - 2, *IMAGE)
wider("narrow", lambda m, x: x.narrow(1, 1, 6), lambda c: 6, *IMAGE)
wider("index-select", lambda m, x: x[:, [3, 0, 2, 5]], lambda c: 4, *IMAGE)
wider("repeat", lambda m, x: x.repeat(1, 2, 1, 1), lambda c: 2 * c, MAPS)
wider("repeat-interleave", lambda m, x: x.repeat_interleave(2, 1), lambda c: 2 * c, *IMAGE)
wider("pixel-unshuffle", lambda m, x: F.interpolate(F.pixel_unshuffle(x, 2), size=8), lambda c: 4 * c, MAPS)
wider("pixel-shuffle", lambda m, x: F.max_pool2d(F.pixel_shuffle(x, 2), 2), lambda c: c // 4, MAPS)
wider("pad-channels", lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 3)), lambda c: c + 4, MAPS)
wider("pad-channels-with", lambda m, x: F.pad(x, (2, 2), value=0.5), lambda c: c + 4, TOKENS, VECTORS)
wider("pad-channels-away", lambda m, x: F.pad(x, (0, 0, 0, 0, -1, -3)), lambda c: c - 4, MAPS)
wider("two-halves-multiplied", lambda m, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), lambda c: c // 2, *IMAGE)
wider("split-uneven", lambda m, x: F.relu(x.split([4, x.shape[1] - 4], 1)[1]), lambda c: c - 4, *IMAGE)
wider("maxout", lambda m, x: x.view(x.shape[0], -1, 2, *x.shape[2:]).amax(2), lambda c: c // 2, *IMAGE)
wider("concat-with-constant", lambda m, x: torch.cat([x, torch.ones_like(x[:, :2])], 1), lambda c: c + 2, *IMAGE)
wider("concat-relu", lambda m, x: F.relu(torch.cat([x, -x], 1)), lambda c: 2 * c, *IMAGE)


@construct("constant-pad", MAPS)
def constant_pad(d: Draw, c: int) -> Body:
    pad, conv = nn.ConstantPad2d(1, 0.7), nn.Conv2d(c, c, 3)
    return Body(lambda m, x: F.relu(m.conv(m.pad(x))), c, pad=pad, conv=conv)


@construct("view-literal", MAPS)
def view_literal(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(x.reshape(-1, c * 64).view(-1, c, 8, 8)), c)


@construct("view-literal-rows", MAPS)
def view_rows(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(x.reshape(-1, 64)).view(-1, c, 8, 8), c)


@construct("flatten-linear", MAPS)
def flatten_linear(d: Draw, c: int) -> Body:
    layer = nn.Linear(c * 4, 8)
    return Body(
        lambda m, x: m.layer(F.adaptive_avg_pool2d(x, 2).flatten(1))[:, :, None, None].expand(-1, -1, 8, 8),
        8,
        layer=layer,
    )


@construct("tokens-of-maps", MAPS)
def tokens_of_maps(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.layer(x.flatten(2).transpose(1, 2))
        return F.relu(y).transpose(1, 2).unflatten(2, (8, 8))

    return Body(forward, c + 4, layer=nn.Linear(c, c + 4))


@construct("mixing-tokens", TOKENS)
def mixing_tokens(d: Draw, c: int) -> Body:
    mix = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6))
    return Body(lambda m, x: x + m.mix(x.transpose(1, 2)).transpose(1, 2), c, mix=mix)


@construct("windows", MAPS)
def windows(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        y = F.relu(m.layer(y))
        return y.view(n, h // 4, w // 4, 4, 4, -1).permute(0, 5, 1, 3, 2, 4).reshape(n, -1, h, w)

    return Body(forward, c, layer=nn.Linear(c, c))
