"""Attention taken apart: it computes the same, comes back as it was, and from a file."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import core.graph.build
from core.channels import find_channels
from core.compress import compress
from core.errors import CheckpointError
from core.export import load, save
from core.graph.attention import SplitMultiheadAttention, SplitSelfAttention
from core.graph.packed import pack, unpack
from tests.core.attentions import (
    HEAD,
    HEADS,
    WIDTH,
    Net,
    apart,
    drawn,
    images,
    of_torch,
    tokens,
    vision_transformer,
)

MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "real": {"attn_mask": torch.linspace(-1, 1, 35).view(5, 7)},
    "causal": {"attn_mask": torch.ones(5, 7, dtype=torch.bool).triu(1), "is_causal": True},
    "of-each-head": {"attn_mask": torch.linspace(-2, 2, 12 * 35).view(12, 5, 7)},
    "padding": {"key_padding_mask": torch.arange(7).expand(3, 7) > 4},
    "both": {
        "attn_mask": torch.ones(5, 7, dtype=torch.bool).triu(3),
        "key_padding_mask": torch.arange(7).expand(3, 7) > 4,
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 10}], ids=["plain", "unbiased", "uneven"])
def test_taken_apart_it_computes_the_same(mask: str, batch_first: bool, options: dict[str, Any]) -> None:
    net = drawn(nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, **options)))
    parts = copy.deepcopy(net)
    packed = unpack(parts)
    assert list(packed) == ["0"]
    assert type(parts[0]) is SplitMultiheadAttention
    shapes = ((3, 5, WIDTH), (3, 7, options.get("kdim", WIDTH)), (3, 7, options.get("vdim", WIDTH)))
    given = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    given = given if batch_first else [x.transpose(0, 1) for x in given]
    ways: tuple[dict[str, bool], ...] = ({}, {"need_weights": False}, {"average_attn_weights": False})
    for asked in ways:
        (mixed, weights), (other, others) = (
            net[0](*given, **MASKS[mask], **asked),
            parts[0](*given, **MASKS[mask], **asked),
        )
        torch.testing.assert_close(mixed, other)
        assert (weights is None) == (others is None)
        if weights is not None:
            torch.testing.assert_close(weights, others)
    pack(parts, packed)
    assert isinstance(parts.get_submodule("0"), nn.MultiheadAttention)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), parts.state_dict().values(), strict=True))


def test_without_a_batch_it_computes_the_same() -> None:
    net = drawn(nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS)))
    parts, x = copy.deepcopy(net), torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    unpack(parts)
    for a, b in zip(net[0](x, x, x), parts[0](x, x, x), strict=True):
        torch.testing.assert_close(a, b)


def test_odd_modules_are_not_taken_apart() -> None:
    hooked = nn.MultiheadAttention(WIDTH, HEADS)
    hooked.register_forward_hook(lambda *_: None)
    shared = nn.MultiheadAttention(WIDTH, HEADS)
    own = nn.MultiheadAttention(WIDTH, HEADS)
    own.forward = lambda *_: None  # type: ignore[method-assign,assignment]
    odd = [
        nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True),
        nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True),
        type("Own", (nn.MultiheadAttention,), {})(WIDTH, HEADS),
        nn.TransformerEncoderLayer(WIDTH, HEADS),
        *(hooked, shared, shared, own),
    ]
    assert unpack(nn.Sequential(*odd)) == {}


def test_the_sets_of_an_attention() -> None:
    channels = find_channels(of_torch(), tokens())
    stream, pairs, values = channels.sets
    assert stream.producers == ("stem", "attention.out_proj")
    assert stream.consumers == ("attention.q_proj", "attention.k_proj", "attention.v_proj", "head")
    assert pairs.producers == pairs.pairs == ("attention.q_proj", "attention.k_proj")
    assert (pairs.consumers, values.pairs) == ((), None)
    assert (values.producers, values.consumers) == (("attention.v_proj",), ("attention.out_proj",))
    for own in (pairs, values):
        assert own.blocks is not None
        assert own.blocks.tolist() == [h for h in range(HEADS) for _ in range(HEAD)]
    assert set(channels.skipped) == {"head"}


def test_at_ratio_zero_the_module_is_the_one_that_was_given() -> None:
    net = of_torch()
    before = copy.deepcopy(net.state_dict())
    result = compress(net, tokens(), ratio=0.0)
    assert type(result.model.attention) is nn.MultiheadAttention
    after = result.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert type(net.attention) is nn.MultiheadAttention
    assert apart(net, result.model, tokens()) == 0


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_those_of_the_network(training: bool) -> None:
    net = of_torch(dropout=0.5).train(training)
    small = compress(net, tokens(), ratio=0.5).model
    assert all(module.training == training for module in small.modules())
    assert (apart(small, small, tokens()) > 0) == training
    small(tokens()).sum().backward()
    assert all(p.grad is not None for p in small.attention.parameters())


def test_files_bring_it_back(tmp_path: Path) -> None:
    result = compress(of_torch(), tokens(), ratio=0.5)
    path = save(result.model, tmp_path / "small.safetensors")
    again = load(path, factory=of_torch)
    assert isinstance(again.attention, SplitMultiheadAttention)
    assert apart(result.model, again, tokens()) == 0
    with pytest.raises(CheckpointError, match="another factory"):
        load(path, factory=lambda: Net(nn.Linear(WIDTH, WIDTH)))
    twice = compress(again, tokens(), ratio=0.5).model
    assert apart(twice, load(save(twice, path), factory=of_torch), tokens()) == 0


def test_code_that_looks_into_the_module_keeps_it_whole() -> None:
    def looks(m: Any, x: Tensor) -> Tensor:
        return m(x, x, x, need_weights=False)[0] * m.in_proj_weight.shape[0]

    net = drawn(Net(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), looks))
    channels = find_channels(net, tokens())
    assert channels.graph.packed == {}
    assert channels.sets == ()
    assert "multiheadattention" in channels.skipped["attention"]


def test_weights_that_are_asked_for_are_those_of_the_cut_network() -> None:
    def seen(m: Any, x: Tensor) -> Tensor:
        mixed, weights = m(x, x, x)
        return mixed * weights.amax(-1, keepdim=True)

    net = drawn(Net(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), seen))
    result = compress(net, tokens(), ratio=0.5)
    assert len(result.sites) == 3


@pytest.mark.slow
def test_timms_attention_is_taken_apart() -> None:
    pytest.importorskip("timm")
    attention: Any = importlib.import_module("timm.layers.attention").Attention
    net = drawn(Net(attention(WIDTH, HEADS, qkv_bias=True, proj_drop=0.25), lambda m, x: m(x)))
    result = compress(net, tokens(), ratio=0.5)
    assert isinstance(result.model.attention, SplitSelfAttention)
    assert result.model.attention.out_drop == 0.25
    assert result.model.attention.proj.in_features == WIDTH // 2
    assert isinstance(compress(net, tokens(), ratio=0.0).model.attention, attention)
    odd = drawn(Net(attention(WIDTH, HEADS, qk_norm=True, norm_layer=nn.LayerNorm), lambda m, x: m(x)))
    assert find_channels(odd, tokens()).graph.packed == {}


def test_attention_that_was_not_cut_is_given_back_as_it_was(tmp_path: Path) -> None:
    """Files of networks whose attention is whole are those of earlier releases, and the other way round."""
    net, x = vision_transformer(), images()
    result = compress(net, x, ratio=0.5, sites=["*.mlp.0"], decomposition="least-squares", calibration=x)
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in net.named_parameters()}
    again = load(save(result.model, tmp_path / "small.safetensors"), factory=vision_transformer)
    assert apart(result.model, again, x) == 0
    assert isinstance(again.encoder.layers[0].self_attention, nn.MultiheadAttention)
    half = compress(net, x, ratio=0.5, sites=["*layer_1.self_attention.*"])
    kinds = [type(layer.self_attention) for layer in half.model.encoder.layers]
    assert kinds == [nn.MultiheadAttention, SplitMultiheadAttention]
    again = load(save(half.model, tmp_path / "half.safetensors"), factory=vision_transformer)
    assert [type(layer.self_attention) for layer in again.encoder.layers] == kinds
    assert apart(half.model, again, x) == 0


def test_a_module_that_would_compute_something_else_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the example inputs do not show it: tokens that are all alike are mixed in any way to the same."""

    def of_another_scale(module: nn.Module, names: Any = None) -> dict[str, nn.Module]:
        found = unpack(module, names)
        for part in module.modules():
            if isinstance(part, SplitMultiheadAttention):
                part.scale *= 2
        return found

    monkeypatch.setattr(core.graph.build, "unpack", of_another_scale)
    assert find_channels(of_torch(), torch.zeros(2, 6, 5)).graph.packed == {}


def test_outputs_that_are_no_numbers_are_compared_as_well() -> None:
    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = of_torch()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out = self.net(x)
            return {"out": out, "sure": out > 0, "first": out.argmax(-1)}

    assert find_channels(Answers().eval(), tokens()).graph.packed != {}
