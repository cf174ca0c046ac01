"""Heads: cut alike, scored, merged and refitted, with twins that merge exactly and slow loops beside what is fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import compress, prepare
from core.evidence import InputStatistics
from core.footprint import Size, footprint
from core.graph.attention import SplitMultiheadAttention
from core.measure import sizes
from tests.core.attentions import (
    HEAD,
    HEADS,
    TOKENS,
    WIDTH,
    Guarded,
    Masked,
    Net,
    apart,
    drawn,
    images,
    of_torch,
    tokens,
    twins,
    vision_transformer,
)


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


def test_a_vision_transformer_loses_half_of_every_block() -> None:
    net, x = vision_transformer(), images()
    result = compress(net, x, ratio=0.5)
    before, after = (
        sum(p.numel() for name, p in m.named_parameters() if ".layers." in name) for m in (net, result.model)
    )
    assert after / before < 0.53
    assert len(result.sites) == 6
    assert not any(name.endswith((".q_proj", ".k_proj", ".v_proj", ".mlp.0")) for name in result.skipped)
    assert all(result.skipped.values())


@pytest.mark.parametrize("allocation", ["uniform", "global", "budget"])
def test_every_allocation_spreads_over_heads(allocation: str) -> None:
    net, x = vision_transformer(), images(24)
    result = compress(net, x[:1], ratio=0.4, allocation=allocation, calibration=x, decomposition="least-squares")
    for site in result.sites:
        if "self_attention" in site.name:
            assert len({sum(i // 8 == h for i in site.kept) for h in range(4)}) == 1


def test_least_squares_is_nearer_than_merging_and_merging_than_nothing() -> None:
    net, x = vision_transformer().double(), images(64).double()
    errors, sites = [], ["*self_attention*"]
    for method in ("none", "gram", "least-squares"):
        small = compress(net, x[:1], ratio=0.5, sites=sites, calibration=x[:48], decomposition=method).model
        with torch.no_grad():
            errors.append(float((small(x[48:]) - net(x[48:])).square().sum()))
    assert errors[2] < errors[1] < errors[0]
