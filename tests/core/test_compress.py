"""compress(): what is kept, what the result is, and every refusal."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core.compress import compress, prepare
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError
from tests.core.nets import NETS, images, make

METHODS = ("folding", "gaussian", "gram", "least-squares", "most-similar", "nmf", "none", "ridge")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_table_of_decompositions_is_complete() -> None:
    assert tuple(DECOMPOSITIONS.names()) == METHODS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_every_method_on_every_wiring_gives_a_smaller_working_network(name: str, method: str) -> None:
    net, _ = make(name)
    before = copy.deepcopy(net.state_dict())
    result = compress(net, images(), ratio=0.5, decomposition=method, calibration=images(16))
    y = result.model(images())
    assert y.shape == (4, 5)
    assert torch.isfinite(y).all()
    assert count(result.model) < 0.6 * count(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items()), "the argument is never changed"
    y.sum().backward()
    assert all(p.grad is not None for p in result.model.parameters()), "it trains"
    assert torch.equal(copy.deepcopy(result.model)(images()), y)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_ratio_zero_is_the_identity(name: str, method: str) -> None:
    net = make(name)[0].double()
    x = images().double()
    result = compress(net, x, ratio=0.0, decomposition=method, calibration=x)
    assert float((result.model(x) - net(x)).abs().max()) < 1e-10
    assert count(result.model) == count(net)


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(0, 0.999), criterion=st.sampled_from(["l1", "l2", "geometric-median"]))
def test_kept_counts_follow_the_ratio(ratio: float, criterion: str) -> None:
    net, _ = make("plain")
    for site in compress(net, images(), ratio=ratio, criterion=criterion).sites:
        exact = site.size * (1 - ratio)
        expected = round(exact) if site.name == "fc1" else int(exact + 1e-9)
        assert len(site.kept) == max(1, expected)
        assert list(site.kept) == sorted(set(site.kept))


def test_ties_are_broken_by_index() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    net[0].weight.data.fill_(1.0)
    net[0].bias.data.fill_(0.0)
    assert compress(net, torch.randn(1, 3), ratio=0.5).sites[0].kept == (0, 1, 2)


def test_per_site_ratios_follow_patterns() -> None:
    net, _ = make("plain")
    result = compress(net, images(), ratio=0.0, allocation="per-site", ratios={"conv*": 0.5, "fc1": 0.25})
    assert {s.name: len(s.kept) for s in result.sites} == {"conv1": 4, "conv2": 4, "fc1": 6}


def test_prepared_networks_give_what_fresh_ones_give() -> None:
    net, _ = make("residual")
    prepared = prepare(net, images())
    for _ in range(2):
        again = compress(prepared, images(), ratio=0.5)
        assert torch.equal(again.model(images()), compress(net, images(), ratio=0.5).model(images()))


def test_free_semi_nmf_replaces_rows_and_approximates_them_better() -> None:
    net = nn.Sequential(nn.Linear(20, 30), nn.Identity(), nn.Linear(30, 5))
    x = torch.randn(200, 20)
    error = {}
    for rows in ("fixed", "free"):
        result = compress(net, x, ratio=0.6, decomposition="nmf", options={"rows": rows, "iterations": 200})
        error[rows] = float((result.model(x) - net(x)).square().mean().detach())
    assert error["free"] < error["fixed"]


def test_free_rows_behind_a_batch_norm_compute_the_combination_they_claim() -> None:
    """Without an activation, W ≈ Z·Y must hold for what the consumer sees; at full rank it is exact."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Identity(), nn.Conv2d(8, 5, 1)).eval()
    net[1].running_mean.uniform_(-1, 1), net[1].running_var.uniform_(0.5, 2)
    net[1].weight.data.uniform_(0.5, 1.5), net[1].bias.data.uniform_(-1, 1)
    x = images()
    result = compress(net, x, ratio=0.25, decomposition="nmf", options={"rows": "free", "iterations": 2000})
    kept = compress(net, x, ratio=0.25, decomposition="none")
    assert float((result.model(x) - net(x)).abs().mean()) < 0.35 * float((kept.model(x) - net(x)).abs().mean())


def test_batch_norm_recalibration_resets_the_statistics() -> None:
    net, _ = make("plain")
    x = images(256)
    result = compress(net, x, ratio=0.5, decomposition="none", options={"bn_recalibrate": True}, calibration=x)
    inside = result.model.conv1(x)
    torch.testing.assert_close(result.model.bn1.running_mean, inside.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
    assert not result.model.training


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ratio": 1.5}, UsageError, "ratio = 1.5: must be at least 0 and less than 1"),
        ({"ratio": -0.1}, UsageError, "must be at least 0"),
        ({"allocation": "per-site", "ratios": {"conv1": 1.0}}, UsageError, "conv1 = 1.0"),
        ({"criterion": "l3"}, UnknownNameError, "unknown criterion 'l3'; did you mean"),
        ({"decomposition": "most-simlar"}, UnknownNameError, "did you mean 'most-similar'"),
        ({"options": {"treshold": 0.1}}, UnknownNameError, "did you mean 'threshold'"),
        ({"options": {"threshold": 2.0}}, UsageError, "threshold = 2.0: input should be less than or equal to 1"),
        ({"allocation": "unifrom"}, UnknownNameError, "did you mean 'uniform'"),
        ({"decomposition": "least-squares"}, UsageError, "pass calibration=images"),
        ({"decomposition": "least-squares", "calibration": torch.empty(0, 3, 8, 8)}, UsageError, "has no images"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(arguments: dict, error: type[Exception], message: str) -> None:
    net, _ = make("plain")
    with pytest.raises(error, match=message):
        compress(net, images(), **arguments)
