"""Attention within windows: torchvision's Swin transformers and MaxViT, with a layer each for queries, keys and values.

As `core.graph.attention`, for images whose channels come last: windows of tokens are cut out, possibly shifted, and
what is learnt of the place of one token relative to another is added to the products of their queries and keys:

    y = out( concat_h softmax(scale · Q_h K_hᵀ + B_h) V_h ),

B of shape (h, S, S) for windows of S tokens. Swin V2 compares directions instead: Q_h and K_h are divided by their
lengths and the scale is learnt, so that one of their dimensions cannot be removed without changing the others; only its
values are cut. The functions here are single nodes of a traced graph, with rules in `core.graph.rules.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from core.graph.attention import SplitAttention, attend, mix

Sides = Sequence[int]
"""Of rows and of columns."""

APART = -100.0
"""What Swin transformers add to the products of tokens that a shift has put side by side."""
STEEPEST = math.log(100.0)
"""Logarithm of the largest scale of Swin V2."""


def windows(x: Tensor, size: Sides, shift: Sides) -> Tensor:
    """Windows (N·n, S, C) of ``size`` of x (N, H, W, C), rolled by ``shift``; zeros fill up those at the edge."""
    rows, columns = _whole(x, size)
    x = F.pad(x, (0, 0, 0, columns - x.shape[2], 0, rows - x.shape[1]))
    by = _shifts((rows, columns), size, shift)
    x = x.roll((-by[0], -by[1]), (1, 2)) if any(by) else x
    x = torch.unflatten(torch.unflatten(x, 2, (-1, size[1])), 1, (-1, size[0]))  # (N, rows, s, columns, s, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def joined(x: Tensor, like: Tensor, size: Sides, shift: Sides) -> Tensor:
    """Undo `windows`: x (N·n, S, C) as (N, H, W, C) with N, H and W of ``like``."""
    rows, columns = _whole(like, size)
    x = torch.unflatten(x, 0, (like.shape[0], rows // size[0], columns // size[1]))
    x = torch.unflatten(x, 3, (size[0], size[1]))
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    by = _shifts((rows, columns), size, shift)
    x = x.roll(by, (1, 2)) if any(by) else x
    return x[:, : like.shape[1], : like.shape[2]].contiguous()


def relative(table: Tensor, index: Tensor, like: Tensor, size: Sides, shift: Sides) -> Tensor:
    """What is added to the products within each window, (1, h, S, S), or (N·n, h, S, S) where windows are shifted.

    Args:
        table: (places, h), a number for each relative place.
        index: (S·S,) or (S, S), the relative place of each pair of tokens.
        like: what the windows are cut from, (N, H, W, C).
        size: of a window.
        shift: of all windows.
    """
    tokens = size[0] * size[1]
    bias = table[index.flatten()].view(tokens, tokens, -1).permute(2, 0, 1)[None]
    sides = _whole(like, size)
    by = _shifts(sides, size, shift)
    if not any(by):
        return bias
    regions = [_regions(*each, like.device) for each in zip(sides, size, by, strict=True)]
    region = windows((3 * regions[0][:, None] + regions[1])[None, :, :, None], size, (0, 0))[:, :, 0]
    apart = APART * (region[:, None] != region[:, :, None]).to(bias)
    return (bias + apart[:, None]).repeat(like.shape[0], 1, 1, 1)


def directions(q: Tensor, k: Tensor, heads: int, steepness: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (…, S, h·d) whose products are cosines times the scale, exp(``steepness``) (h, 1, 1)."""
    q, k = (F.normalize(torch.unflatten(x, -1, (heads, -1)), dim=-1) for x in (q, k))
    scale = steepness.clamp(max=STEEPEST).exp()
    return (q * scale.view(heads, 1)).flatten(-2), k.flatten(-2)


def _whole(x: Tensor, size: Sides) -> tuple[int, int]:
    """Rows and columns of x (N, H, W, C), rounded up to whole windows."""
    rows, columns = (-(-side // own) * own for side, own in zip(x.shape[1:3], size, strict=True))
    return rows, columns


def _shifts(sides: Sides, size: Sides, shift: Sides) -> tuple[int, int]:
    """The shift along each side; none where one window covers it."""
    rows, columns = (0 if own >= side else by for side, own, by in zip(sides, size, shift, strict=True))
    return rows, columns


def _regions(side: int, size: int, shift: int, device: torch.device) -> Tensor:
    """Which parts of the image the places along a shifted side are from, (side,)."""
    place = torch.arange(side, device=device)
    return (place >= side - size).int() + (place >= side - shift).int()


fx.wrap("attend")  # as this module knows it
fx.wrap("windows")
fx.wrap("joined")
fx.wrap("relative")
fx.wrap("directions")


class SplitWindowAttention(SplitAttention):
    """What stands for torchvision's ``ShiftedWindowAttention``, also that of Swin V2; called like one.

    Attributes:
        size: of a window.
        shift: of all windows.
        out_drop: share of the outputs that are zero in training.
        silent: the keys' constants (h·d,) that Swin V2 holds and never adds.
    """

    out = "proj"
    silent: Tensor | None = None
    size: Sides = (1, 1)
    shift: Sides = (0, 0)
    out_drop: float = 0.0
    relative_position_bias_table: Tensor
    relative_position_index: Tensor
    relative_coords_table: Tensor
    logit_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The mixed tokens of x (N, H, W, in)."""
        seen = windows(x, self.size, self.shift)
        q, k, v = (layer(seen) for layer in self.projections)
        share = self.dropout if self.training else 0.0
        mask = self.bias(x)
        if hasattr(self, "logit_scale"):
            pair = directions(q, k, self.heads, self.logit_scale)
            mixed = attend(pair, v, self.heads, 1.0, mask, False, share, True)
        else:
            mixed = mix(q, k, v, self.heads, self.scale, mask, False, share, True)
        mixed = joined(mixed, x, self.size, self.shift)  # each token's outputs are its own: padding is dropped first
        return F.dropout(self.reader(mixed), self.out_drop, self.training)

    def bias(self, x: Tensor) -> Tensor:
        """What is added to the products of queries and keys."""
        if hasattr(self, "cpb_mlp"):
            table = 16 * torch.sigmoid(self.get_submodule("cpb_mlp")(self.relative_coords_table).flatten(0, -2))
        else:
            table = self.relative_position_bias_table
        return relative(table, self.relative_position_index, x, self.size, self.shift)


class SplitRelativeAttention(SplitAttention):
    """What stands for MaxViT's ``RelativePositionalMultiHeadAttention``; called like one.

    Attributes:
        size: of a window, whose tokens are given.
    """

    out = "merge"
    packed_as = "to_qkv"
    size: Sides = (1, 1)
    relative_position_bias_table: Tensor
    relative_position_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The mixed tokens of x (N, windows, S, in)."""
        seen = x.flatten(0, 1)
        q, k, v = (layer(seen) for layer in self.projections)
        mask = relative(self.relative_position_bias_table, self.relative_position_index, x, self.size, (0, 0))
        mixed = mix(q, k, v, self.heads, self.scale, mask, False, 0.0, True)
        y: Tensor = self.reader(torch.unflatten(mixed, 0, x.shape[:2]))
        return y
