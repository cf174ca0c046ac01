"""The strongest test there is: double every width with proportional twins, compress by half, get the function back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.compress import compress
from tests.core.nets import NETS, N, Plain, factors, images, make, scales
from tests.planting import randomise, twin_norm


def difference(a: nn.Module, b: nn.Module) -> float:
    x = images()
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max())


def test_the_table_has_every_wiring() -> None:
    assert len(NETS) == 7


@pytest.mark.parametrize("name", NETS)
def test_merging_planted_twins_is_lossless(name: str) -> None:
    original, doubled = make(name)
    assert difference(original, doubled) < 1e-5, "the planting itself must not change the function"
    result = compress(doubled, images(), ratio=0.5, criterion="l1", decomposition="most-similar")
    assert difference(original, result.model) < 1e-4
    assert all(site.cosine > 1 - 1e-6 and site.approximate == () for site in result.sites)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (original, result.model)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", NETS)
def test_without_merging_the_same_cut_loses_the_function(name: str) -> None:
    original, doubled = make(name)
    result = compress(doubled, images(), ratio=0.5, criterion="l1", decomposition="none")
    assert difference(original, result.model) > 1e-2


def planted(extra: int = 1) -> tuple[Plain, Plain]:
    """The plain net, and one whose first layer has ``extra`` twins of channel 0 only."""
    original, wide = randomise(Plain()), randomise(Plain())
    with torch.no_grad():
        f, s = factors(True)[:extra], scales()[:extra]
        one = nn.Conv2d(3, 1, 3, bias=False)
        one.weight.data = wide.conv1.weight[:1].repeat(extra, 1, 1, 1) * f.view(-1, 1, 1, 1)
        norm = nn.BatchNorm2d(1)
        norm.weight.data, norm.bias.data = wide.bn1.weight[:1], wide.bn1.bias[:1]
        norm.running_mean, norm.running_var = wide.bn1.running_mean[:1], wide.bn1.running_var[:1]
        for k in range(extra):
            first = nn.BatchNorm2d(1)
            first.weight.data, first.bias.data = norm.weight.clone(), norm.bias.clone()
            first.running_mean, first.running_var = norm.running_mean.clone(), norm.running_var.clone()
            twin_norm(first, f[k : k + 1], s[k : k + 1])
            wide.bn1.weight.data = torch.cat([wide.bn1.weight, first.weight[1:]])
            wide.bn1.bias.data = torch.cat([wide.bn1.bias, first.bias[1:]])
            wide.bn1.running_mean = torch.cat([wide.bn1.running_mean, first.running_mean[1:]])
            wide.bn1.running_var = torch.cat([wide.bn1.running_var, first.running_var[1:]])
        wide.conv1.weight.data = torch.cat([wide.conv1.weight, one.weight])
        wide.bn1.num_features = wide.conv1.out_channels = N + extra
        v = wide.conv2.weight.data
        parts = [v[:, :1] * 0.5 / extra / s[k] for k in range(extra)]
        wide.conv2.weight.data = torch.cat([v[:, :1] * 0.5, v[:, 1:], *parts], 1)
        wide.conv2.in_channels = N + extra
    return original, wide


def test_two_channels_that_share_a_kept_one_add_up() -> None:
    original, wide = planted(extra=2)
    assert difference(original, wide) < 1e-5
    result = compress(wide, images(), ratio=2 / (N + 2), sites=["conv1"])
    assert result.sites[0].kept == tuple(range(N))
    assert result.sites[0].merged == 2
    assert difference(original, result.model) < 1e-4


def test_an_all_zero_channel_is_removed_without_a_trace() -> None:
    original, wide = planted()
    with torch.no_grad():
        wide.conv1.weight[-1] = 0.0
        wide.bn1.bias[-1] = -1.0
        wide.bn1.running_mean[-1] = 0.0
        wide.conv2.weight[:, 0] *= 2
    assert difference(original, wide) < 1e-5
    result = compress(wide, images(), ratio=1 / (N + 1), sites=["conv1"])
    assert result.sites[0].kept == tuple(range(N))
    assert difference(original, result.model) < 1e-4


def test_a_constant_channel_goes_into_the_bias() -> None:
    """A channel without weights is the constant φ(b): behind it, an unpadded consumer's bias can hold it exactly."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3))
    randomise(net)
    with torch.no_grad():
        net[0].weight[2] = 0.0
        net[1].bias[2], net[1].running_mean[2] = 1.5, 0.0
    result = compress(net, images(), ratio=0.25)
    assert result.sites[0].kept == (0, 1, 3)
    assert difference(net, result.model) < 1e-5


def test_a_row_twin_with_the_opposite_gamma_is_no_candidate() -> None:
    """Channel 8 has the rows of channel 0 and the opposite γ: merging into it would flip the sign under ReLU."""
    _, wide = planted()
    with torch.no_grad():
        decoy, real = 1, N
        wide.conv1.weight[decoy] = wide.conv1.weight[real].sign() * wide.conv1.weight[real].abs() * 12
        wide.bn1.weight[decoy] = -wide.bn1.weight[real]
        wide.bn1.bias[decoy], wide.bn1.running_mean[decoy] = wide.bn1.bias[real], wide.bn1.running_mean[real]
        reference = wide(images())
        result = compress(wide, images(), ratio=1 / (N + 1), sites=["conv1"], options={"threshold": -1.0})
        assert result.sites[0].kept == tuple(range(N))
        assert float((result.model(images()) - reference).abs().max()) < 1e-4


def test_equal_bias_distances_are_no_division_by_zero() -> None:
    original, doubled = make("plain")
    with torch.no_grad():
        for net in (original, doubled):
            for norm in (net.bn1, net.bn2):
                norm.bias.zero_()
                norm.running_mean.zero_()
            net.conv2.bias.zero_()
    result = compress(doubled, images(), options={"lam": 0.0})
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    exact = compress(doubled, images(), options={"lam": 0.85})
    assert difference(original, exact.model) < 1e-4
