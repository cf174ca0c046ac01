"""Decompositions that combine channels: compared with slow loops in float64, and what each of them promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import compress, prepare
from core.config import TrialConfig, make_options
from core.decompositions import DECOMPOSITIONS
from core.decompositions.base import ChannelMoments, Decomposition, Merge, plain
from core.errors import ModelError, UsageError
from core.gaussian import covariance_of
from core.merging import merge_in_blocks
from core.seen import seen_moments
from core.signature import Signature
from core.signatures import signatures
from tests import oracle
from tests.core.nets import NETS, Misnamed, images, make
from tests.planting import randomise

NAMES = ("folding", "gaussian", "gram", "ridge")
LOSSLESS: dict[str, dict[str, Any]] = {
    "folding": {},
    "gaussian": {"damping": 1e-6},
    "gram": {"damping": 1e-6},
    "ridge": {"damping": 1e-6},
}
"""Options with which twins are merged without loss."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_rows(rows: Tensor, **more: Any) -> Signature:
    return Signature(rows @ rows.T, torch.zeros(len(rows), dtype=torch.float64), **more)


def seen_by(net: nn.Module, x: Tensor, site: str) -> dict[str, ChannelMoments | None]:
    prepared = prepare(net, x[:1])
    (chosen,) = [s for s in prepared.channels.sets if s.name == site]
    return seen_moments(prepared.channels, chosen, prepared.statistics_on(x))


def test_the_table_has_what_is_not_tested_elsewhere() -> None:
    assert {*NAMES, "least-squares", "most-similar", "nmf", "none"} == set(DECOMPOSITIONS.names())


# ridge


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damping", [1e-3, 0.3, 5.0])
def test_ridge_equals_the_slow_loop(seed: int, damping: float) -> None:
    rows, kept = normal(14, 20, seed=seed), [0, 3, 4, 9, 13]
    z = make_options("ridge", {"damping": damping}).merge(of_rows(rows), torch.tensor(kept)).z
    np.testing.assert_allclose(z.numpy(), oracle.combined(rows.numpy(), kept, damping), atol=1e-9)


def test_ridge_counts_a_batch_norms_constants_as_one_more_column() -> None:
    rows, bias, kept = normal(10, 7), normal(10, seed=1), [1, 2, 6]
    signature = Signature(rows @ rows.T, bias, normed=True)
    z = make_options("ridge", {"damping": 0.1, "bias_weight": 4.0}).merge(signature, torch.tensor(kept)).z
    wider = torch.cat([rows, 2 * bias[:, None]], 1).numpy()
    np.testing.assert_allclose(z.numpy(), oracle.combined(wider, kept, 0.1), atol=1e-9)


@pytest.mark.parametrize("name", ["folding", "ridge"])
def test_what_is_left_of_the_mean_is_the_offset(name: str) -> None:
    mean, kept = normal(9, seed=2), torch.tensor([0, 4, 7])
    options = {"centroids": False} if name == "folding" else {}
    merge = make_options(name, options).merge(of_rows(normal(9, 5), mean=mean), kept)
    torch.testing.assert_close(merge.offset + merge.z @ mean[kept], mean)


# folding


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [(s, r, p) for s in (True, False) for r in (True, False) for p in (True, False)])
def test_folding_equals_k_means_on_the_rows_themselves(seed: int, options: tuple[bool, bool, bool]) -> None:
    """The fast one only knows inner products; what becomes of each channel, Z·P·W, is compared."""
    scaled, repair, pinned = options
    rows, kept = normal(16, 12, seed=seed) + normal(1, 12, seed=seed + 50), [2, 3, 8, 11, 15]
    method = make_options("folding", {"scales": scaled, "repair": repair, "centroids": not pinned})
    merge = method.merge(of_rows(rows), torch.tensor(kept))
    representatives = rows[kept] if merge.rows is None else merge.rows @ rows
    _, expected = oracle.folded(rows.numpy(), kept, scaled, repair, pinned)
    np.testing.assert_allclose((merge.z @ representatives).numpy(), expected, atol=1e-9)
    assert (merge.rows is None) == pinned
    assert int((merge.z != 0).sum()) == 16


def test_repaired_centroids_have_the_mean_norm_of_their_members() -> None:
    rows = normal(30, 10)
    merge = make_options("folding", {}).merge(of_rows(rows), torch.arange(6))
    assert merge.rows is not None
    member = (merge.z != 0).double()
    wanted = (member * rows.norm(dim=1)[:, None]).sum(0) / member.sum(0)
    got = (merge.rows @ rows).norm(dim=1)
    assert bool((got <= wanted + 1e-9).all())
    assert int((got > wanted - 1e-9).sum()) >= 5, "no more than the root of the members' number is made up for"
    plainly = make_options("folding", {"repair": False}).merge(of_rows(rows), torch.arange(6))
    assert plainly.rows is not None
    assert float((plainly.rows @ rows).norm(dim=1).mean()) < 0.8 * float(wanted.mean())


def test_opposite_rows_are_not_blown_up_to_the_norm_of_their_members() -> None:
    rows = torch.tensor([[1.0, 0.1], [-1.0, 0.1]], dtype=torch.float64)
    merge = make_options("folding", {}).merge(of_rows(rows), torch.tensor([0]))
    assert merge.rows is not None
    torch.testing.assert_close((merge.rows @ rows)[0], math.sqrt(2) * rows.mean(0))
    torch.testing.assert_close(merge.z, torch.ones_like(merge.z))


@pytest.mark.parametrize("between", [nn.Identity(), nn.ReLU()])
def test_centroids_behind_a_batch_norm_are_what_they_claim(between: nn.Module) -> None:
    """One channel of two members: behind the norm the mean of both rows and constants, and the consumer sums."""
    net = randomise(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), between, nn.Conv2d(6, 4, 1))).double()
    net[0].weight.data[3:] = net[0].weight.data[:3] + 0.02 * normal(3, 3, 3, 3)
    net[1].weight.data.fill_(1.0), net[1].running_var.fill_(1.0)
    x = images().double()
    options = {"scales": False, "repair": False}
    result = compress(net, x, ratio=0.5, decomposition="folding", options=options)
    with torch.no_grad():
        y = net[1](net[0](x))
        pairs = between((y[:, :3] + y[:, 3:]) / 2)
        expected = net[3](torch.cat([pairs, pairs], 1))
        torch.testing.assert_close(result.model(x), expected)
    assert result.sites[0].note == ""


def test_centroids_need_rows_that_the_consumer_reads_as_they_are() -> None:
    """A batch norm behind the activation scales what the rows know nothing of; a sum has rows of several layers."""
    late = randomise(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    for method, options in (("folding", {}), ("nmf", {"rows": "free"})):
        (site,) = compress(late, torch.randn(2, 6), decomposition=method, options=options).sites
        assert "need a single producer" in site.note
    sites = compress(make("residual")[0], images(), decomposition="folding").sites
    assert [("single producer" in s.note) for s in sites] == [len(s.producers) > 1 for s in sites]


def test_empty_clusters_and_dead_kept_channels_get_a_channel() -> None:
    rows = normal(12, 4).abs()
    rows[0], rows[1] = 0.0, rows[2]
    merge = make_options("folding", {}).merge(of_rows(rows), torch.tensor([0, 1, 2]))
    assert merge.rows is not None
    assert bool((merge.rows @ rows).norm(dim=1).gt(0.1).all()), "every channel that stays is used"
    assert bool(torch.isfinite(merge.z).all())


# gram


class Flat(nn.Module):
    """Two convolutions, the second with stride and padding, a flatten and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.fc1, self.fc2 = nn.Linear(6 * 9, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.silu(self.conv1(x))))
        return self.fc2(torch.tanh(self.fc1(x.flatten(1))))


def channels_read(net: nn.Module, name: str, x: Tensor) -> Tensor:
    """What a layer reads, (rows, channels): one row for each tap and place."""
    kept: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        net(x)
    handle.remove()
    layer: Any = net.get_submodule(name)
    if isinstance(layer, nn.Linear):
        channels = 6 if name == "fc1" else layer.in_features
        return kept[0].view(len(x), channels, -1).transpose(1, 2).flatten(0, 1)
    unfolded = F.unfold(kept[0], layer.kernel_size, padding=layer.padding, stride=layer.stride)
    return unfolded.view(len(x), layer.in_channels, -1).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(("site", "reader"), [("conv1", "conv2"), ("conv2", "fc1"), ("fc1", "fc2")])
@pytest.mark.parametrize("affine", [True, False])
def test_gram_is_the_least_squares_solution_on_what_is_read(site: str, reader: str, affine: bool) -> None:
    net, x = randomise(Flat()).double(), images(64).double()
    h = channels_read(net, reader, x)
    seen = seen_by(net, x, site)
    kept = torch.tensor([0, 2, 5])
    method = make_options("gram", {"affine": affine, "damping": 1e-6})
    merge = method.merge_seen(of_rows(normal(h.shape[1], 3)), kept, seen[reader])
    given = torch.cat([h[:, kept], torch.ones(len(h), int(affine))], 1)
    solution = torch.linalg.lstsq(given, h).solution  # (k, n), and a last row for the constants
    torch.testing.assert_close(merge.z, solution[:3].T, atol=2e-4, rtol=2e-4)
    constants = solution[3] if affine else torch.zeros(h.shape[1], dtype=h.dtype)
    torch.testing.assert_close(merge.offset, constants, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_gram_equals_the_slow_loop(damping: float) -> None:
    h, kept = normal(40, 9) + 1, [0, 4, 5]
    moments = ChannelMoments(h.mean(0), h.T @ h / len(h))
    merge = make_options("gram", {"damping": damping}).merge_seen(of_rows(h.T), torch.tensor(kept), moments)
    expected = oracle.combined(h.T.numpy() / math.sqrt(len(h)), kept, damping)
    np.testing.assert_allclose(merge.z.numpy(), expected, atol=1e-9)


def test_the_fold_does_what_the_regression_says() -> None:
    """Behind the cut, the last layer gives V·(B·h_K + offset) + b."""
    net, x = randomise(Flat()).double(), images(64).double()
    options = {"affine": True, "damping": 1e-3}
    result = compress(net, x[:1], decomposition="gram", options=options, calibration=x, sites=["fc1"])
    h, kept = channels_read(net, "fc2", x), torch.tensor(result.sites[0].kept)
    merge = make_options("gram", options).merge_seen(of_rows(h.T), kept, seen_by(net, x, "fc1")["fc2"])
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), net.fc2(h[:, kept] @ merge.z.T + merge.offset))
        assert float((result.model(x) - net(x)).square().mean()) < float(
            (compress(net, x[:1], decomposition="none", sites=["fc1"]).model(x) - net(x)).square().mean()
        )


def test_grouped_consumers_are_solved_group_by_group() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1, groups=2))).double()
    x = images(16).double()
    seen = seen_by(net, x, "0")["2"]
    blocks, kept = torch.tensor([0] * 4 + [1] * 4), torch.tensor([0, 3, 5, 6])
    method = make_options("gram", {"damping": 1e-6})
    merge = merge_in_blocks(method, of_rows(normal(8, 27)), kept, blocks, seen)
    with torch.no_grad():
        h = net[1](net[0](x)).movedim(1, -1).flatten(0, -2)
    for channels, given, column in ((slice(0, 4), [0, 3], slice(0, 2)), (slice(4, 8), [5, 6], slice(2, 4))):
        solution = torch.linalg.lstsq(h[:, given], h[:, channels]).solution
        torch.testing.assert_close(merge.z[channels, column], solution.T, atol=1e-4, rtol=1e-4)
    assert int((merge.z != 0).sum()) == 12
    result = compress(net, x[:1], decomposition="gram", calibration=x)
    assert (
        result.sites[0].reconstruction["2"]
        < compress(net, x[:1], decomposition="none", calibration=x).sites[0].reconstruction["2"]
    )


def test_moments_are_found_for_what_a_consumer_reads_only() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(4, 8), nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            a, b = torch.relu(self.first(x)).chunk(2, 1)
            return self.left(a) + self.right(b)

    net, x = randomise(Parts()), normal(32, 4).float()
    prepared = prepare(net, x[:1])
    for chosen in prepared.channels.sets:
        for name, seen in prepared.seen(chosen, x).items():
            assert seen is not None, name
            assert torch.equal(seen.second, seen.second.T)
    result = compress(prepared, x[:1], decomposition="gram", calibration=x)
    assert bool(torch.isfinite(result.model(x)).all())


def test_a_layer_used_twice_has_the_moments_of_both_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
            self.again = nn.Linear(6, 3)
            self.again.weight = self.last.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x))) + self.again(torch.relu(self.first(2 * x)))

    net, x = randomise(Twice()).double(), normal(40, 4)
    net.again.weight = net.last.weight
    (seen,) = seen_by(net, x, "first").values()
    with torch.no_grad():
        h = torch.cat([torch.relu(net.first(x)), torch.relu(net.first(2 * x))])
    assert seen is not None
    torch.testing.assert_close(seen.second, h.T @ h / len(h))
    torch.testing.assert_close(seen.mean, h.mean(0))


def test_a_consumer_that_cannot_have_a_bias_gets_the_plain_form() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight = nn.Linear(4, 8), nn.Parameter(torch.randn(3, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(torch.relu(self.first(x)), self.weight)

    torch.manual_seed(0)
    net, x = Bare().double().eval(), normal(40, 4)
    (seen,) = seen_by(net, x, "first").values()
    assert seen is not None
    assert float(seen.mean.abs().max()) == 0.0
    found = [
        compress(net, x[:1], decomposition="gram", options={"affine": affine}, calibration=x)
        for affine in (True, False)
    ]
    assert torch.equal(found[0].model(x), found[1].model(x))
    assert found[0].sites[0].approximate == ()


def test_an_input_that_cannot_be_laid_out_is_merged_without_images_and_said() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Misnamed(8, 4, 3)))
    found = compress(net, images(1), decomposition="gram", calibration=images(8))
    assert found.sites[0].note == "2: its input cannot be laid out in rows: merged as most-similar does"
    similar = compress(net, images(1), decomposition="most-similar")
    assert torch.equal(found.model(images()), similar.model(images()))


def test_gram_needs_images_of_the_right_shape() -> None:
    net = make("plain")[0]
    with pytest.raises(UsageError, match="Gram looks at activations: pass calibration=images"):
        compress(net, images(), decomposition="gram")
    with pytest.raises(ModelError, match=r"does not run on calibration images of shape \(4, 1, 8, 8\)"):
        compress(net, images(), decomposition="gram", calibration=torch.randn(4, 1, 8, 8))
    assert TrialConfig(decomposition="gram").calibration == "train-subset"
    assert all(TrialConfig(decomposition=name).calibration is None for name in ("folding", "gaussian", "ridge"))


# gaussian


ACTIVATIONS = {"relu": torch.relu, "gelu": F.gelu, "relu6": F.relu6, "tanh": torch.tanh, "leaky": F.leaky_relu}


@pytest.mark.parametrize("phi", ACTIVATIONS)
@pytest.mark.parametrize("rho", [-0.9, 0.2, 0.95])
def test_gaussian_covariances_equal_the_slow_double_integral(phi: str, rho: float) -> None:
    mean, std = torch.tensor([0.3, -0.5], dtype=torch.float64), torch.tensor([1.2, 0.7], dtype=torch.float64)
    cov = torch.outer(std, std) * torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    call = ACTIVATIONS[phi]
    scalar = {
        "relu": lambda v: max(v, 0.0),
        "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
        "relu6": lambda v: min(max(v, 0.0), 6.0),
        "tanh": math.tanh,
        "leaky": lambda v: v if v > 0 else 0.01 * v,
    }[phi]
    found = covariance_of(call, mean, cov)[0, 1]
    one = [sum_over_a_normal(scalar, float(m), float(s)) for m, s in zip(mean, std, strict=True)]
    expected = oracle.second_moment(scalar, mean.tolist(), cov.numpy(), points=401) - one[0] * one[1]
    assert float(found) == pytest.approx(expected, abs=2e-4)


def sum_over_a_normal(phi: Any, mean: float, std: float) -> float:
    z = np.linspace(-8, 8, 4001)
    weight = np.exp(-0.5 * z**2)
    return float(sum(w * phi(mean + std * v) for v, w in zip(z, weight / weight.sum(), strict=True)))


@pytest.mark.parametrize("between", [nn.ReLU(), nn.Hardswish(), nn.PReLU(), nn.Tanh(), nn.Sigmoid()])
def test_gaussian_moments_agree_with_monte_carlo(between: nn.Module) -> None:
    """White inputs whose statistics are the batch norm's: then nothing about the assumption is wrong."""
    net = randomise(nn.Sequential(nn.Linear(20, 12, bias=False), nn.BatchNorm1d(12), between, nn.Linear(12, 3)))
    net = net.double()
    net[1].weight.data[::3] *= -1
    net[0].weight.data[4] = net[0].weight.data[2] * 0.5
    shift = normal(20, seed=1)
    x = normal(200_000, 20) + shift
    net[1].running_mean.copy_(net[0].weight.data @ shift)
    net[1].running_var.copy_(net[0].weight.data.square().sum(1) - net[1].eps)
    channels = find_channels(net, x[:2])
    (signature,) = signatures(channels, channels.sets[0], covariances=True).values()
    with torch.no_grad():
        h = net[:3](x)
    assert signature.covariance is not None
    assert signature.mean is not None
    torch.testing.assert_close(signature.mean, h.mean(0), atol=1e-2, rtol=0)
    torch.testing.assert_close(signature.covariance, torch.cov(h.T), atol=2e-2, rtol=0)
    assert float(torch.linalg.eigvalsh(signature.covariance)[0]) > -1e-9


def test_covariances_are_followed_only_where_they_are_asked_for() -> None:
    for name in NETS:
        net = make(name)[0]
        channels = find_channels(net, images())
        for chosen in channels.sets:
            before, after = signatures(channels, chosen), signatures(channels, chosen, covariances=True)
            for consumer, plainly in before.items():
                assert plainly.covariance is None
                torch.testing.assert_close(after[consumer].gram, plainly.gram)
                if plainly.mean is not None:
                    torch.testing.assert_close(after[consumer].mean, plainly.mean)


def test_without_moments_gaussian_merges_the_most_similar_and_says_so() -> None:
    net = randomise(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)))
    x = torch.randn(2, 6)
    found = compress(net, x, decomposition="gaussian")
    assert found.sites[0].note == "3: its channels' moments do not follow from the weights: merged as most-similar does"
    assert torch.equal(found.model(x), compress(net, x, decomposition="most-similar").model(x))


def test_many_channels_cost_one_polynomial() -> None:
    rows = normal(512, 64)
    cov = covariance_of(torch.relu, normal(512), rows @ rows.T)
    assert cov.shape == (512, 512)
    assert float(torch.linalg.eigvalsh(cov)[0]) > -1e-8 * float(cov.diagonal().max())


# all of them


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", NAMES)
def test_planted_twins_are_merged_without_loss(name: str, method: str) -> None:
    """Where the kept rows are linearly dependent, a ridge combination of all of them is not the one twin."""
    original, doubled = (net.double() for net in make(name))
    x = images(64).double()
    result = compress(doubled, x[:4], ratio=0.5, decomposition=method, options=LOSSLESS[method], calibration=x)
    with torch.no_grad():
        lost = float((original(x) - result.model(x)).abs().max())
        without = float((compress(doubled, x[:4], decomposition="none").model(x) - original(x)).abs().max())
    few_inputs = method == "ridge" and name in ("concat", "depthwise", "squeeze-excite", "residual", "pre-activation")
    assert lost < (0.9 * without if few_inputs else 2e-3 * max(1.0, without))


@pytest.mark.parametrize("method", NAMES)
def test_dead_channels_and_too_few_images_give_finite_networks(method: str) -> None:
    """Channels without weights, two that are equal, one that no image turns on, and three images for eight channels."""
    for name in NETS:
        net = make(name)[0]
        first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
        first.weight.data[1] = first.weight.data[0]
        first.weight.data[2:4] = 0.0
        norm = next((m for m in net.modules() if isinstance(m, nn.BatchNorm2d)), None)
        if norm is not None:
            norm.bias.data[5] = -100.0
        for ratio in (0.3, 0.9):
            result = compress(net, images(), ratio=ratio, decomposition=method, calibration=images(3))
            assert bool(torch.isfinite(result.model(images())).all()), (name, ratio)
            weights = [float(p.abs().max()) for p in result.model.parameters()]
            assert max(weights) < 1e3, (name, ratio)


@pytest.mark.parametrize("method", NAMES)
def test_a_network_without_any_weights_gives_a_finite_one(method: str) -> None:
    net = make("plain")[0]
    for parameter in net.parameters():
        parameter.data.zero_()
    result = compress(net, images(), ratio=0.5, decomposition=method, calibration=images(3))
    assert bool(torch.isfinite(result.model(images())).all())


@pytest.mark.parametrize("method", NAMES)
def test_the_same_request_gives_the_same_network(method: str) -> None:
    net, x = make("plain")[0], images(16)
    torch.manual_seed(1)
    first = compress(net, x[:1], decomposition=method, calibration=x).model(x)
    torch.manual_seed(2)
    assert torch.equal(first, compress(net, x[:1], decomposition=method, calibration=x).model(x))


def test_a_method_that_only_merges_is_given_no_moments() -> None:
    class Half(Decomposition):
        def merge(self, signature: Signature, kept: Tensor) -> Merge:
            return Merge(plain(len(signature.gram), kept).z / 2, torch.zeros(len(signature.gram)))

    signature, kept = of_rows(normal(6, 3)), torch.tensor([1, 4])
    moments = ChannelMoments(torch.zeros(6), torch.eye(6))
    assert torch.equal(Half().merge_seen(signature, kept, moments).z, Half().merge(signature, kept).z)
    assert not Half.needs_moments
    assert not Half.needs_covariance


def test_budget_appraises_with_the_images_it_fits_on() -> None:
    net, x = make("plain")[0], images(32)
    result = compress(net, x[:1], ratio=0.5, decomposition="gram", allocation="budget", calibration=x)
    assert bool(torch.isfinite(result.model(x)).all())
