"""Attention: taken apart it computes the same, its heads are cut alike, twins merge exactly, files bring it back."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import compress, prepare
from core.errors import CheckpointError
from core.evidence import InputStatistics
from core.export import load, save
from core.footprint import Size, footprint
from core.graph.attention import SplitMultiheadAttention, SplitSelfAttention
from core.graph.packed import pack, unpack
from core.measure import sizes

WIDTH, HEADS, TOKENS = 16, 4, 6
HEAD = WIDTH // HEADS


class Net(nn.Module):
    """Tokens (N, L, 5) → (N, 3) by one layer of attention with a residual sum."""

    def __init__(self, attention: nn.Module, call: Any = None) -> None:
        super().__init__()
        self.stem, self.attention, self.head = nn.Linear(5, WIDTH), attention, nn.Linear(WIDTH, 3)
        self.call = call or (lambda m, x: m(x, x, x, need_weights=False)[0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head((x + self.call(self.attention, x)).mean(1))
        return y


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.4
    return net.eval()


def of_torch(**options: Any) -> Net:
    return drawn(Net(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)))  # type: ignore[return-value]


def tokens(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, TOKENS, 5, generator=torch.Generator().manual_seed(seed))


def apart(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max())


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


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_heads_lose_as_many_channels_each_and_keep_the_scale(ratio: float) -> None:
    net = of_torch()
    result = compress(net, tokens(), ratio=ratio, decomposition="none", sites=["*.q_proj", "*.v_proj"])
    small = result.model.attention
    assert isinstance(small, SplitMultiheadAttention)
    for site in result.sites:
        assert len({sum(i // HEAD == h for i in site.kept) for h in range(HEADS)}) == 1
    assert small.scale == HEAD**-0.5
    q, k, v = net.attention.in_proj_weight.detach().view(3, HEADS, HEAD, WIDTH)
    qb, kb, vb = net.attention.in_proj_bias.detach().view(3, HEADS, HEAD)
    pairs, values = (torch.tensor(site.kept).view(HEADS, -1) % HEAD for site in result.sites)
    with torch.no_grad():
        x = net.stem(tokens())
        mixed = []
        for h in range(HEADS):
            one, two = x @ q[h, pairs[h]].T + qb[h, pairs[h]], x @ k[h, pairs[h]].T + kb[h, pairs[h]]
            weights = (one @ two.mT / HEAD**0.5).softmax(-1)
            mixed.append(weights @ (x @ v[h, values[h]].T + vb[h, values[h]]))
        columns = net.attention.out_proj.weight[:, torch.tensor(result.sites[1].kept)]
        expected = net.head((x + torch.cat(mixed, -1) @ columns.T + net.attention.out_proj.bias).mean(1))
        torch.testing.assert_close(result.model(tokens()), expected)


def twins(net: Net, part: int) -> None:
    """Make each second row of the queries (0), keys (1) or values (2) 0.6 times the one before it, biases too."""
    attention = net.attention
    for p in (attention.in_proj_weight, attention.in_proj_bias):
        rows = p.data.view(3, WIDTH, -1)
        rows /= rows.flatten(2).norm(dim=2, keepdim=True)  # so that scores say which twin goes
        if p.dim() == 2 or part == 2:
            rows[part, 1::2] = 0.6 * rows[part, ::2]


@pytest.mark.parametrize("part", [1, 2], ids=["keys", "values"])
@pytest.mark.parametrize("decomposition", ["most-similar", "nmf", "gram", "least-squares"])
def test_planted_twins_merge_exactly(part: int, decomposition: str) -> None:
    """Twins among the keys need no twin biases, nor twins among the queries: the softmax does not see a bias."""
    net = of_torch().double()
    twins(net, part)
    site = "attention.q_proj" if part == 1 else "attention.v_proj"
    x = tokens(64).double()
    options = {"gram": {"damping": 1e-6}, "least-squares": {"prior_threshold": 0.99}}.get(decomposition, {})
    result = compress(net, x[:1], ratio=0.5, sites=[site], decomposition=decomposition, options=options, calibration=x)
    assert result.sites[0].kept == tuple(range(0, WIDTH, 2))
    assert result.sites[0].merged == WIDTH // 2
    plain = compress(net, x[:1], ratio=0.5, sites=[site], decomposition="none")
    assert apart(net, plain.model, x) > 1e-2
    assert apart(net, result.model, x) < (1e-3 if decomposition == "gram" else 1e-9)


def test_queries_that_are_mixtures_are_refitted_as_such() -> None:
    """Where the tokens are cut as well, the queries' layer is refitted; what it should give are the mixed queries."""
    net = of_torch().double()
    twins(net, 1)
    with torch.no_grad():
        for layer in (net.stem, net.attention.out_proj):
            for p in layer.parameters():
                p[1::2] = 0.6 * p[::2]
    x = tokens(64).double()
    options = {"prior_threshold": 0.99}
    result = compress(net, x[:1], ratio=0.5, decomposition="least-squares", options=options, calibration=x)
    assert {site.name for site in result.sites} == {"stem", "attention.q_proj", "attention.v_proj"}
    assert not any("further" in site.note for site in result.sites)
    few = compress(
        net, x[:1], ratio=0.5, decomposition="least-squares", options=options, calibration=x, sites=["stem", "*.q_proj"]
    )
    lost = next(site for site in few.sites if site.name == "stem").reconstruction
    assert lost["attention.q_proj"] < 1e-12
    assert apart(net, few.model, x) < 1e-6


def test_moments_of_queries_and_keys_are_those_of_a_slow_loop() -> None:
    net, x = of_torch().double(), tokens(5).double()
    channels = find_channels(net, x)
    found = InputStatistics(channels, x).of_pairs("attention.q_proj")
    q, k, _ = net.attention.in_proj_weight.detach().split(WIDTH)
    qb, kb, _ = net.attention.in_proj_bias.detach().split(WIDTH)
    queries, keys = torch.zeros(2, HEADS, HEAD, HEAD, dtype=torch.float64)
    for image in net.stem(x).detach():
        one, two = image @ q.T + qb, image @ k.T + kb
        two = two - two.mean(0)
        for h in range(HEADS):
            own = slice(h * HEAD, (h + 1) * HEAD)
            for token in range(TOKENS):
                queries[h] += torch.outer(one[token, own], one[token, own]) / (len(x) * TOKENS)
                keys[h] += torch.outer(two[token, own], two[token, own]) / (len(x) * TOKENS)
    torch.testing.assert_close(found.queries, queries)
    torch.testing.assert_close(found.keys, keys)


def test_refitted_queries_give_the_nearest_products() -> None:
    """No other map of the queries brings the centred products nearer to the original's, on the calibration images."""
    net, x = of_torch().double(), tokens(40).double()
    result = compress(
        net, x[:1], ratio=0.5, sites=["attention.q_proj"], decomposition="least-squares", calibration=x, criterion="obs"
    )
    kept, small = torch.tensor(result.sites[0].kept), result.model.attention
    q, k, _ = net.attention.in_proj_weight.detach().split(WIDTH)
    qb, kb, _ = net.attention.in_proj_bias.detach().split(WIDTH)
    with torch.no_grad():
        t = net.stem(x)
        whole, keys = t @ q.T + qb, t @ k.T + kb
        made, fewer = small.q_proj(t), small.k_proj(t)
    torch.testing.assert_close(fewer, keys[..., kept])
    for h in range(HEADS):
        own, cut = slice(h * HEAD, (h + 1) * HEAD), slice(h * HEAD // 2, (h + 1) * HEAD // 2)
        centred, few = (z - z.mean(1, keepdim=True) for z in (keys[..., own], fewer[..., cut]))
        wanted = whole[..., own] @ centred.mT
        best = torch.linalg.lstsq(few.flatten(0, 1), centred.flatten(0, 1)).solution  # few·best ≈ centred
        least = (whole[..., own] @ best.T @ few.mT - wanted).square().sum()
        left = (made[..., cut] @ few.mT - wanted).square().sum()
        plain = (whole[..., kept[cut]] @ few.mT - wanted).square().sum()
        assert least * 0.5 < left < 1.02 * least < plain


@pytest.mark.parametrize("criterion", ["l1", "obs", "activation", "apoz", "taylor", "random", "bn-scale"])
def test_every_criterion_scores_heads(criterion: str) -> None:
    net, x = of_torch(), tokens(16)
    labels = torch.arange(16) % 3
    result = compress(net, x[:1], ratio=0.5, criterion=criterion, calibration=x, labels=labels)
    assert len(result.sites) == 3


def test_obs_chooses_pairs_that_matter() -> None:
    net, x = of_torch(), tokens(32)
    with torch.no_grad():
        net.attention.in_proj_weight[:WIDTH:2] *= 0.01  # queries that are nothing, beside keys that are something
        net.attention.in_proj_bias[:WIDTH:2] *= 0.01
        net.attention.in_proj_weight[WIDTH : 2 * WIDTH : 2] *= 5
    for criterion in ("l1", "obs"):
        result = compress(net, x[:1], ratio=0.5, criterion=criterion, calibration=x, sites=["*q_proj"])
        assert result.sites[0].kept == tuple(range(1, WIDTH, 2)), criterion


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


@pytest.mark.parametrize("of", ["params", "macs", "bytes"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_footprint_is_that_of_the_cut_network(of: Size, batch_first: bool) -> None:
    """Products of queries and keys, and mixtures of values, count with the widths of their heads."""
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)

    def call(m: Any, x: Tensor) -> Tensor:
        y: Tensor = x if batch_first else x.transpose(0, 1)
        mixed = m(y, y, y, need_weights=False)[0]
        return mixed if batch_first else mixed.transpose(0, 1)

    net, x = drawn(Net(attention, call)), tokens(3)
    prepared = prepare(net, x)
    sets = prepared.channels.sets
    found = footprint(prepared.channels, sets, x, of)
    assert found.whole == sizes(net, x)[of]
    for ratio in (0.25, 0.5, 0.75):
        result = compress(prepared, x, ratio=ratio, decomposition="none")
        widths = np.array([len(site.kept) for site in result.sites])
        assert found.at(widths) == pytest.approx(sizes(result.model, x)[of], rel=1e-12)


class Guarded(Net):
    """torch.fx cannot trace it, so that torch.export has to."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 100 or not x.dtype.is_floating_point:
            raise ValueError("too many tokens")
        return super().forward(x)


@pytest.mark.parametrize("decomposition", ["none", "most-similar", "least-squares"])
def test_networks_that_are_exported_are_cut_as_others(decomposition: str) -> None:
    own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    net, other = of_torch(), drawn(Guarded(own))
    x = tokens(16)
    results = []
    for one in (net, other):
        results.append(compress(one, x[:1], ratio=0.5, sites=["*_proj"], decomposition=decomposition, calibration=x))
        assert {site.name for site in results[-1].sites} >= {"attention.q_proj", "attention.v_proj"}
    with torch.no_grad():
        torch.testing.assert_close(results[0].model(x), results[1].model(x), rtol=1e-4, atol=1e-5)


class Masked(Net):
    """A causal mask that it keeps, and one of padding that it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
        self.register_buffer("mask", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:  # type: ignore[override]
        x = self.stem(x)
        mixed, _ = self.attention(x, x, x, key_padding_mask=padding, attn_mask=self.mask)
        y: Tensor = self.head((x + mixed).mean(1))
        return y


def test_masks_are_left_as_they_are() -> None:
    net, x = drawn(Masked()), tokens(8).double()
    padding = torch.arange(TOKENS).expand(8, TOKENS) > torch.tensor([3, 4, 5] * 3)[:8, None]
    net = net.double()
    twins(net, 1)  # type: ignore[arg-type]
    result = compress(net, (x, padding), ratio=0.5, sites=["*.q_proj"])
    assert result.sites[0].merged == WIDTH // 2
    with torch.no_grad():
        torch.testing.assert_close(result.model(x, padding), net(x, padding))
    assert result.model.mask.shape == net.mask.shape
