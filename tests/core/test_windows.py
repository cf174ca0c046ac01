"""Attention within windows, taken apart: it computes the same, comes back as it was, and its twins merge exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import (
    PatchMerging,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from core.channels import find_channels
from core.compress import compress
from core.export import load, save
from core.graph.packed import pack, unpack
from core.graph.windows import SplitRelativeAttention, SplitWindowAttention
from tests.core.attentions import apart, drawn

WIDTH, HEADS = 16, 4
SIZES = {"whole": (8, 8), "with-zeros": (7, 9), "one-window": (4, 4), "one-row-of-windows": (3, 9)}


class Tokens(nn.Module):
    """Images (N, H, W, 5) → (N, H, W, 3) by one layer of attention with a residual sum."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.stem, self.attention, self.head = nn.Linear(5, WIDTH), attention, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head(x + self.attention(x))
        return y


def swin(kind: Callable[..., nn.Module] = ShiftedWindowAttention, shift: int = 2, **options: Any) -> Tokens:
    return drawn(Tokens(kind(WIDTH, [4, 4], [shift, shift], HEADS, **options)))  # type: ignore[return-value]


def maxvit() -> Tokens:
    return drawn(Tokens(RelativePositionalMultiHeadAttention(WIDTH, WIDTH // HEADS, 16)))  # type: ignore[return-value]


def images(rows: int = 8, columns: int = 8, count: int = 3) -> Tensor:
    return torch.randn(count, rows, columns, 5, generator=torch.Generator().manual_seed(1))


def small_swin(block: Callable[..., nn.Module] = SwinTransformerBlock) -> nn.Module:
    return drawn(SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=3, block=block))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
def test_taken_apart_windows_compute_the_same(kind: Any, shift: int, size: str) -> None:
    net = swin(kind, shift).double()
    parts, x = copy.deepcopy(net), images(*SIZES[size]).double()
    packed = unpack(parts)
    assert type(parts.attention) is SplitWindowAttention
    torch.testing.assert_close(parts(x), net(x))
    pack(parts, packed)
    assert type(parts.attention) is kind
    assert list(parts.state_dict()) == list(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), parts.state_dict().values(), strict=True))


def test_taken_apart_maxvit_computes_the_same() -> None:
    net, x = maxvit().double(), images(5, 16).double()
    parts = copy.deepcopy(net)
    packed = unpack(parts)
    assert type(parts.attention) is SplitRelativeAttention
    torch.testing.assert_close(parts(x), net(x))
    pack(parts, packed)
    assert list(parts.state_dict()) == list(net.state_dict())


def test_without_constants_and_with_dropout_it_is_the_same() -> None:
    net = swin(qkv_bias=False, proj_bias=False, attention_dropout=0.5, dropout=0.25)
    parts = copy.deepcopy(net)
    unpack(parts)
    torch.testing.assert_close(parts(images()), net(images()))
    split: Any = parts.attention
    assert (split.dropout, split.out_drop) == (0.5, 0.25)
    assert apart(parts.train(), parts, images()) > 0


def twins(net: Any, packed: str, part: int) -> None:
    """Make each second row of the keys (1) or values (2) 0.6 times the one before it."""
    layer = getattr(net.attention, packed)
    for p in (layer.weight, layer.bias):
        rows = p.data.view(3, WIDTH, -1)
        rows /= rows.flatten(2).norm(dim=2, keepdim=True)
        rows[part, 1::2] = 0.6 * rows[part, ::2]


@pytest.mark.parametrize("part", [1, 2], ids=["keys", "values"])
@pytest.mark.parametrize(("make", "packed"), [(swin, "qkv"), (maxvit, "to_qkv")], ids=["swin", "maxvit"])
@pytest.mark.parametrize("decomposition", ["most-similar", "least-squares"])
def test_planted_twins_merge_exactly(make: Any, packed: str, part: int, decomposition: str) -> None:
    net = make().double()
    twins(net, packed, part)
    x = images(8, 16, 16).double()
    site = "attention.q_proj" if part == 1 else "attention.v_proj"
    options = {"least-squares": {"prior_threshold": 0.99}}.get(decomposition, {})
    result = compress(net, x[:1], ratio=0.5, sites=[site], decomposition=decomposition, options=options, calibration=x)
    assert result.sites[0].kept == tuple(range(0, WIDTH, 2))
    assert result.sites[0].merged == WIDTH // 2
    plain = compress(net, x[:1], ratio=0.5, sites=[site], decomposition="none")
    assert apart(net, plain.model, x) > 1e-2
    assert apart(net, result.model, x) < 1e-9


def test_directions_keep_their_queries_and_keys() -> None:
    """Of Swin V2 the values are cut; each head's queries and keys are divided by their lengths."""
    channels = find_channels(swin(ShiftedWindowAttentionV2), images())
    assert [s.name for s in channels.sets] == ["stem", "attention.v_proj", "attention.cpb_mlp.0"]
    assert {name: reason for name, reason in channels.skipped.items() if name != "head"} == {
        "attention.q_proj": "the lengths of each head's queries and keys are divided out",
        "attention.k_proj": "the lengths of each head's queries and keys are divided out",
        "attention.cpb_mlp.2": "it is added to the products of each head's queries and keys",
    }


@pytest.mark.parametrize("alike", [(0, 1, 2, 3), (3,)])
def test_four_tokens_as_one_are_merged_where_all_four_are_alike(alike: tuple[int, ...]) -> None:
    """Each of the four places has a factor of its own: twins at one of them alone are none."""
    half, x = WIDTH // 2, images().double()
    net: Any = drawn(nn.Sequential(nn.Linear(5, WIDTH), PatchMerging(WIDTH), nn.Linear(2 * WIDTH, 3))).double()
    rows = net[0].weight.data
    rows /= rows.norm(dim=1, keepdim=True)
    rows[half:], net[0].bias.data[:] = (1 - 1e-6) * rows[:half], 0.3  # so these go
    for p in (net[1].norm.weight, net[1].norm.bias):
        places = p.data.view(4, WIDTH)
        places[list(alike), half:] = places[list(alike), :half]
    result = compress(net, x[:1], ratio=0.5, sites=["0"], criterion="l2", options={"threshold": 0.999})
    assert result.sites[0].consumers == ("1.reduction",)
    assert result.sites[0].merged == (half if len(alike) == 4 else 0)


@pytest.mark.parametrize("block", [SwinTransformerBlock, SwinTransformerBlockV2])
def test_a_swin_transformer_is_cut_everywhere(block: Any, tmp_path: Path) -> None:
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    net = small_swin(block)
    result = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    cosine = block is SwinTransformerBlockV2
    assert set(result.skipped) - {"head"} == {
        name for name in result.skipped if cosine and name.endswith(("q_proj", "k_proj", "cpb_mlp.2"))
    }
    share = sum(p.numel() for p in result.model.parameters()) / sum(p.numel() for p in net.parameters())
    assert share < (0.45 if cosine else 0.28)
    again = load(save(result.model, tmp_path / "small.safetensors"), factory=lambda: small_swin(block))
    assert apart(result.model, again, x) == 0
    again.train()(x).sum().backward()
    assert all(p.grad is not None for p in again.parameters())
    assert apart(net, compress(net, x, ratio=0.0).model, x) == 0
