"""Decoupling: the formula as slow loops, exact where it must be, and what the rest of the package makes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.compress import compress
from core.config import TrialConfig, make_options
from core.decoupling import candidates, plan, spread
from core.errors import CheckpointError, UsageError
from core.export import load, save
from core.measure import sizes
from core.models import load_model
from core.moments import Moments
from core.slices import Decoupled, Slices, by_channel, composed, refitted
from tests.planting import randomise
from tests.trained import mobile, resnet, vgg

Maker = dict[str, Any]
LAYERS: dict[str, tuple[type[nn.Module], tuple[Any, ...], Maker]] = {
    "plain": (nn.Conv2d, (4, 10, 3), {}),
    "stride and padding": (nn.Conv2d, (4, 10, 3), {"stride": 2, "padding": 1}),
    "dilation": (nn.Conv2d, (4, 10, 3), {"dilation": 2, "padding": (2, 1), "bias": False}),
    "same": (nn.Conv2d, (4, 10, 3), {"padding": "same"}),
    "reflected": (nn.Conv2d, (4, 10, 3), {"padding": 1, "padding_mode": "reflect"}),
    "groups": (nn.Conv2d, (4, 12, 3), {"groups": 2, "padding": 1}),
    "more filters than channels": (nn.Conv2d, (4, 12, 3), {"groups": 4}),
    "oblong": (nn.Conv2d, (4, 10, (1, 5)), {"padding": (0, 2)}),
    "few outputs": (nn.Conv2d, (4, 2, 3), {}),
    "a line": (nn.Conv1d, (4, 10, 5), {"stride": 2, "padding": 2}),
    "a volume": (nn.Conv3d, (4, 30, 3), {"padding": 1}),
}


def layer(name: str) -> Any:
    kind, given, how = LAYERS[name]
    torch.manual_seed(1)
    return kind(*given, **how).double()


def inputs(conv: Any) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, conv.in_channels, *[9] * (conv.weight.dim() - 2), dtype=torch.float64)


def of_rank(conv: Any, rank: int) -> Any:
    """The layer with slices of that rank."""
    torch.manual_seed(3)
    u = torch.randn(conv.in_channels, conv.out_channels // conv.groups, rank, dtype=torch.float64)
    v = torch.randn(conv.in_channels, rank, math.prod(conv.kernel_size), dtype=torch.float64)
    slices = (u @ v).view(conv.groups, -1, *(u @ v).shape[1:]).transpose(1, 2)
    conv.weight.data = slices.reshape(conv.weight.shape)
    return conv


def slow(conv: Any, terms: int) -> np.ndarray:
    """The weight of rank T in every slice, from the eigenvectors of each slice's inner products, channel by channel."""
    w = conv.weight.detach().numpy()
    out = np.zeros_like(w)
    outs, ins = len(w) // conv.groups, w.shape[1]
    for group in range(conv.groups):
        rows = slice(group * outs, (group + 1) * outs)
        for channel in range(ins):
            part = w[rows, channel].reshape(outs, -1)
            values, vectors = np.linalg.eigh(part.T @ part)
            best = vectors[:, np.argsort(values)[::-1][:terms]]
            out[rows, channel] = (part @ best @ best.T).reshape(w[rows, channel].shape)
    return out


@pytest.mark.parametrize("name", LAYERS)
def test_all_terms_are_the_layer_itself(name: str) -> None:
    conv = layer(name)
    one = Slices.of(name, conv)
    part = one.split(one.sigma.shape[1])
    torch.testing.assert_close(part(inputs(conv)), conv(inputs(conv)), atol=1e-12, rtol=1e-12)
    assert part.terms == min(conv.out_channels // conv.groups, math.prod(conv.kernel_size))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("terms", [1, 2])
def test_fewer_terms_are_the_slow_loop(name: str, terms: int) -> None:
    conv = layer(name)
    part = Slices.of(name, conv).split(terms)
    expected = slow(conv, terms)
    np.testing.assert_allclose(composed(part).detach().numpy(), expected, atol=1e-10)
    wanted = layer(name)
    wanted.weight.data = torch.from_numpy(expected)
    torch.testing.assert_close(part(inputs(conv)), wanted(inputs(conv)), atol=1e-10, rtol=1e-10)
    assert sum(p.numel() for p in (part.depthwise.weight, part.pointwise.weight)) == Slices.of(name, conv).each * terms


@pytest.mark.parametrize("name", ["plain", "groups", "a volume"])
def test_planted_slices_of_low_rank_are_taken_apart_without_loss(name: str) -> None:
    conv = of_rank(layer(name), 2)
    one = Slices.of(name, conv)
    assert one.lost[2] < 1e-20 < 1e-3 < one.lost[1]
    torch.testing.assert_close(one.split(2)(inputs(conv)), conv(inputs(conv)), atol=1e-10, rtol=1e-10)
    by_hand = [float(by_channel(conv.weight, conv.groups).square().sum()), float(one.sigma.square().sum())]
    assert by_hand[0] == pytest.approx(by_hand[1])


def test_the_best_of_all_weights_of_low_rank() -> None:
    """Eckart and Young: no other pair of filters and columns is nearer."""
    conv = layer("plain")
    one = Slices.of("", conv)
    lost = float((composed(one.split(2)) - conv.weight).square().sum()) / float(conv.weight.square().sum())
    assert lost == pytest.approx(one.lost[2])
    for seed in range(20):
        torch.manual_seed(seed)
        part = one.split(2)
        part.pointwise.weight.data += 0.01 * torch.randn_like(part.pointwise.weight)
        part.depthwise.weight.data += 0.01 * torch.randn_like(part.depthwise.weight)
        assert float((composed(part) - conv.weight).square().sum()) / float(conv.weight.square().sum()) > lost


def net() -> nn.Sequential:
    """Two convolutions of rank 2 in every slice, one of full rank, a pointwise and a depthwise one, a linear layer."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, bias=False)
    third = nn.Conv2d(16, 24, 3, stride=2, padding=1)
    found = nn.Sequential(
        first, nn.BatchNorm2d(16), nn.ReLU(), second, nn.BatchNorm2d(16), nn.ReLU(), third, nn.ReLU(),
        nn.Conv2d(24, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24), nn.Flatten(), nn.Linear(24 * 4, 5),
    )  # fmt: skip
    randomise(found)
    for conv in (first, second):
        of_rank(conv.double(), 2).float()
    return found.eval()


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def test_what_costs_nothing_goes_first_and_size_is_what_was_asked_for() -> None:
    found, left = candidates(net(), None)
    assert [one.name for one in found] == ["0", "3", "6"]
    assert left == {"pointwise": ["8"], "depthwise": ["10"]}
    most = sum(one.whole - one.each for one in found)
    for amount in (0.01, 0.2, 0.5, 0.8, 1.0):
        terms = spread(found, amount)
        saved = sum(one.whole - terms[one.name] * one.each for one in found if one.name in terms)
        assert saved >= amount * most - 1e-6
        largest = max(max(one.each, one.whole - one.most * one.each) for one in found)
        assert saved < amount * most + largest
    free = spread(found, 0.34)
    assert free == {"0": 2, "3": 2}, "planted ranks are free"
    assert spread(found, 1.0) == {"0": 1, "3": 1, "6": 1}
    assert spread(found, 0.0) == {}


def test_noise_is_what_is_lost_for_what_is_left() -> None:
    """Of three layers alike but for the energies, the one with the steepest fall loses its terms first."""
    torch.manual_seed(0)
    found = []
    for name, fall in (("slow", 0.9), ("fast", 0.3)):
        conv = nn.Conv2d(8, 16, 3).double()
        one = Slices.of(name, conv)
        sigma = torch.tensor([fall**t for t in range(9)], dtype=torch.float64).expand(8, 9)
        found.append(Slices(name, conv, one.u, sigma, one.vt))
        energy = [fall ** (2 * t) for t in range(9)]
        for terms in range(1, 10):
            assert found[-1].noise(terms) == pytest.approx(sum(energy[terms:]) / sum(energy[:terms]))
    assert list(spread(found, 0.3)) == ["fast"]


def test_without_any_energy_nothing_is_lost() -> None:
    conv = nn.Conv2d(4, 16, 3)
    nn.init.zeros_(conv.weight)
    one = Slices.of("", conv)
    assert set(one.lost) == {0.0}
    assert float(one.split(1)(torch.randn(1, 4, 5, 5)).abs().max()) == pytest.approx(float(conv.bias.abs().max()))


def test_a_compressed_network_is_taken_apart_and_says_so() -> None:
    original = net()
    result = compress(original, X, ratio=0.0, decomposition="none", options={"decoupling": 0.34})
    assert result.decoupled == {"0": 2, "3": 2}
    torch.testing.assert_close(result.model(X), original(X), atol=1e-4, rtol=1e-4)
    (note,) = result.notes
    assert "0 into 2, 3 into 2 (depthwise, pointwise) terms" in note
    assert "left whole: 8 (pointwise), 10 (depthwise)" in note
    assert isinstance(original[0], nn.Conv2d), "the original is untouched"
    assert isinstance(result.model.get_submodule("0"), Decoupled)
    before, after = sizes(original, X), sizes(result.model, X)
    saved = 16 * 3 * 9 - 2 * 3 * (9 + 16) + 16 * 16 * 9 - 2 * 16 * (9 + 16)
    assert before["params"] - after["params"] == saved
    assert before["macs"] - after["macs"] == 64 * saved, "every weight is laid over 8 x 8 places"
    assert result.model.training is False
    assert all(p.requires_grad for p in result.model.parameters())
    assert compress(original, X, ratio=0.0, decomposition="none").decoupled == {}


def test_merging_comes_first_and_both_are_there() -> None:
    original = net()
    plain = compress(original, X, ratio=0.5, decomposition="most-similar")
    both = compress(original, X, ratio=0.5, decomposition="most-similar", options={"decoupling": 1.0})
    assert [site.kept for site in both.sites] == [site.kept for site in plain.sites]
    for name, terms in both.decoupled.items():
        conv: Any = plain.model.get_submodule(name)
        part: Any = both.model.get_submodule(name)
        assert terms == 1
        expected = Slices.of(name, conv).split(1)
        torch.testing.assert_close(composed(part), composed(expected))
        assert (part.pointwise.bias is None) == (conv.bias is None)


def test_only_the_chosen_layers() -> None:
    how: dict[str, Any] = {"ratio": 0.0, "decomposition": "none", "options": {"decoupling": 1.0}}
    assert compress(net(), X, sites=["3"], **how).decoupled == {"3": 1}


@pytest.mark.parametrize("shrinkage", [0.0, 64.0])
def test_batch_norms_are_measured_anew_behind_it(shrinkage: float) -> None:
    """Once: the old statistics that count are the original's."""
    options = {"decoupling": 1.0, "bn_recalibrate": True, "bn_shrinkage": shrinkage}
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    model = compress(net(), X, ratio=0.0, decomposition="none", options=options, calibration=x).model
    first: Any = model.get_submodule("0")
    norm: Any = model.get_submodule("1")
    share, old = shrinkage / (shrinkage + 64), net()[1]
    assert isinstance(old, nn.BatchNorm2d)
    for new, was, measured in (
        (norm.running_mean, old.running_mean, first(x).mean((0, 2, 3))),
        (norm.running_var, old.running_var, first(x).var((0, 2, 3))),
    ):
        torch.testing.assert_close(new, (1 - share) * measured + share * was, atol=1e-5, rtol=1e-4)


def test_where_nothing_can_be_decoupled_it_is_said() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(UsageError, match=r"no convolution .* \(it has none\): leave decoupling out"):
        compress(plain, torch.randn(2, 3, 4), decomposition="none", options={"decoupling": 0.5})
    small = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 3))
    with pytest.raises(UsageError, match=r"where no term would save weights: 2"):
        compress(small, torch.randn(2, 3, 4, 4), ratio=0.9, decomposition="none", options={"decoupling": 0.5})
    stem = compress(mobile(), torch.randn(2, 1, 28, 28), decomposition="none", options={"decoupling": 1.0})
    assert list(stem.decoupled) == ["features.0.0"]
    assert "and 7 more (pointwise)" in stem.notes[0]
    with pytest.raises(UsageError, match="decoupling"):
        compress(net(), X, options={"decoupling": 1.5})


class Reads(nn.Module):
    """A network that uses the weight of one of its convolutions itself, and one that looks whether it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c, self.d = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(self.a(x), self.b.weight, padding=1))
        x = self.c(x) if hasattr(self.c, "weight") else x
        return self.d(x).mean((2, 3))


def test_a_layer_that_the_network_s_own_code_looks_into_is_left() -> None:
    found = compress(Reads(), X, ratio=0.0, decomposition="none", options={"decoupling": 1.0})
    assert list(found.decoupled) == ["a"]
    assert "b (without which the network does not run (" in found.notes[0]
    assert "c (without which the network computes something else)" in found.notes[0]


def test_layers_with_ways_of_their_own_are_left() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    tied = nn.Conv2d(16, 16, 3, padding=1)
    twice = nn.Conv2d(16, 16, 3, padding=1)
    twice.weight = tied.weight
    hooked = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
    watched = nn.Conv2d(16, 16, 3, padding=1)
    watched.register_forward_hook(lambda module, given, made: made * 2)
    own = nn.Sequential(Standardised(3, 16, 3), tied, twice, hooked, watched, nn.ConvTranspose2d(16, 16, 3))
    found, left = candidates(own, None)
    assert found == []
    assert left == {
        "with a forward, hooks or a place of their own": ["0", "3", "4", "5"],
        "with a weight that is not theirs alone, or no plain numbers": ["1", "2"],
    }


def test_a_layer_in_two_places_is_taken_apart_in_both() -> None:
    shared = nn.Conv2d(16, 16, 3, padding=1)
    both, x = nn.Sequential(nn.Conv2d(3, 16, 1), shared, nn.ReLU(), shared).double().eval(), X.double()
    of_rank(shared, 1)
    before = both(x)
    done = plan(both, 1.0, (x,))
    done.apply(both)
    assert done.terms == {"1": 1}
    assert both[1] is both[3]
    torch.testing.assert_close(both(x), before)


@pytest.mark.parametrize("factory", [vgg, resnet, mobile])
def test_a_file_gives_the_same_network_back(factory: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original, x = factory().eval(), torch.randn(2, 1, 28, 28)
    result = compress(original, x, ratio=0.4, decomposition="none", options={"decoupling": 0.7})
    path = save(result.model, tmp_path / "net.safetensors", {"a": 1})
    again = load(path, factory=factory)
    assert torch.equal(again(x), result.model(x))
    assert {n: m.terms for n, m in again.named_modules() if isinstance(m, Decoupled)} == dict(result.decoupled)
    torch.export.export(again, (x,))
    trained = again.train()(x).sum()
    trained.backward()
    assert all(p.grad is not None for p in again.parameters())


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"features.3.0": 0}, "no table of numbers"),
        ({"features.3.0": "2"}, "no table of numbers"),
        (["features.3.0"], "no table of numbers"),
        ({"features.99": 2}, "no convolution 'features.99'"),
        ({"features.3.0": 7}, "is not two layers of 7 terms"),
        ({"features.0.0": 2}, "is not two layers of 2 terms"),
        ({}, "the network has no"),
    ],
)
def test_a_file_that_says_something_else_is_refused(header: Any, match: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    how: dict[str, Any] = {"ratio": 0.4, "decomposition": "none", "options": {"decoupling": 1.0}}
    result = compress(vgg().eval(), torch.randn(1, 1, 28, 28), sites=["features.3.0"], **how)
    path = save(result.model, tmp_path / "net.safetensors")
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    assert json.loads(texts["decoupled"]) == {"features.3.0": 1}
    save_file(load_file(path), path, {**texts, "decoupled": json.dumps(header)})
    with pytest.raises(CheckpointError, match=match):
        load(path, factory=vgg)


def test_a_plain_file_has_no_word_of_it(tmp_path: Path) -> None:
    with safe_open(save(vgg(), tmp_path / "net.safetensors"), "pt") as file:
        assert "decoupled" not in file.metadata()


def test_it_changes_no_key_where_it_is_not_used() -> None:
    plain = TrialConfig.parse({"decomposition": "none"})
    assert plain.key == TrialConfig.parse({"decomposition": "none", "options": {"decoupling": 0.0}}).key
    assert plain.key == "650eb2bf30a88428"
    assert plain.key != TrialConfig.parse({"decomposition": "none", "options": {"decoupling": 0.5}}).key


def test_a_decoupled_network_can_be_compressed_again() -> None:
    once = compress(net(), X, ratio=0.0, decomposition="none", options={"decoupling": 0.5}).model
    again = compress(once, X, ratio=0.5, decomposition="most-similar")
    assert sizes(again.model, X)["params"] < sizes(once, X)["params"]
    assert again.model(X).shape == (4, 5)


def samples(groups: int, rows: int, inside: int, out: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    x = torch.randn(groups, rows, inside, dtype=torch.float64) + 1
    return x, torch.randn(groups, rows, out, dtype=torch.float64) + x[..., :1]


@pytest.mark.parametrize("centred", [True, False])
def test_moments_of_what_filters_write_are_those_of_the_moments(centred: bool) -> None:
    x, t = samples(2, 50, 6, 3)
    filters = torch.randn(2, 4, 6, dtype=torch.float64)
    moments, direct = Moments(centred=centred, flat=True), Moments(centred=centred, flat=True)
    for part in (slice(0, 20), slice(20, 50)):
        moments.add(x[:, part], t[:, part])
        direct.add(x[:, part] @ filters.mT, t[:, part])
    found = moments.through(filters)
    for a, b in zip(found.covariances(), direct.covariances(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(found.x_mean, direct.x_mean)
    torch.testing.assert_close(found.t_mean, direct.t_mean)
    assert (found.count, found.flat, found.centred) == (50, True, centred)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_pointwise_layer_is_fitted_to_what_the_filters_write(groups: int) -> None:
    """Channel by channel the leading right singular vectors, and a regression on all that they write."""
    taps, channels, out, terms = 4, 3, 6, 2
    x, t = samples(groups, 200, channels * taps, out)
    v = torch.randn(groups, out, channels * taps, dtype=torch.float64)
    moments = Moments()
    moments.add(x, t)
    method = make_options("least-squares", {"damping": 1e-12})
    weight, bias = refitted(method.solve, moments, v, taps, terms)
    for group in range(groups):
        written, filters = [], []
        for channel in range(channels):
            own = slice(channel * taps, (channel + 1) * taps)
            d = np.linalg.svd(v[group, :, own].numpy())[2][:terms]
            filters.append(d)
            written.append(x[group, :, own].numpy() @ d.T)
        z = np.concatenate([*written, np.ones((200, 1))], 1)
        solution = np.linalg.lstsq(z, t[group].numpy(), rcond=None)[0]
        np.testing.assert_allclose(bias[group].numpy(), solution[-1], atol=1e-8)
        for channel in range(channels):
            own = slice(channel * taps, (channel + 1) * taps)
            p = solution[channel * terms : (channel + 1) * terms].T
            np.testing.assert_allclose(weight[group, :, own].numpy(), p @ filters[channel], atol=1e-8)


def test_least_squares_makes_up_for_what_the_ranks_lose() -> None:
    """On the calibration images, in the network: better than without images, exact where nothing is lost."""
    original = net()
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(6))

    def error(decomposition: str, amount: float, ratio: float) -> float:
        how: dict[str, Any] = {"decomposition": decomposition, "options": {"decoupling": amount}, "ratio": ratio}
        result = compress(original, x[:1], calibration=x, **how)
        assert result.decoupled
        assert {result.model.get_submodule(name).terms for name in result.decoupled} == {*result.decoupled.values()}
        assert "keep the merged" not in " ".join(site.note for site in result.sites)
        return float((result.model(x) - original(x)).square().mean() / original(x).var())

    for amount, ratio in ((0.7, 0.0), (1.0, 0.0), (0.7, 0.3)):
        assert error("least-squares", amount, ratio) < 0.6 * error("most-similar", amount, ratio)
    assert error("least-squares", 0.34, 0.0) < 1e-6


def test_the_pointwise_layer_starts_from_that_of_the_weight_itself() -> None:
    """A solve that changes nothing gives the weight of rank T."""
    x, t = samples(1, 20, 12, 5)
    moments, v = Moments(), torch.randn(1, 5, 12, dtype=torch.float64)
    moments.add(x, t)
    found, _ = refitted(lambda _, prior: (prior, prior[..., 0]), moments, v, 4, 2)
    conv = nn.Conv1d(3, 5, 4).double()
    conv.weight.data = v.view(5, 3, 4)
    np.testing.assert_allclose(found.view(5, 3, 4).numpy(), slow(conv, 2), atol=1e-10)


@pytest.mark.parametrize("decoupling", [0.0, 0.6])
@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("feature.1.weight", torch.Tensor.half, "do not compute together in float16 and float32"),
        ("feature.5.weight", lambda weight: weight[:-1], "do not fit together"),
    ],
)
def test_a_file_whose_layers_do_not_fit_is_refused(
    decoupling: float, name: str, change: Any, match: str, tmp_path: Path
) -> None:
    net = load_model("vgg-small", num_classes=10, in_channels=1).eval()
    how: dict[str, Any] = {"ratio": 0.5, "decomposition": "none", "options": {"decoupling": decoupling}}
    path = save(compress(net, torch.zeros(1, 1, 28, 28), **how).model, tmp_path / "net.safetensors")
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    tensors = load_file(path)
    load(path)
    save_file({**tensors, name: change(tensors[name]).contiguous()}, path, texts)
    with pytest.raises(CheckpointError, match=match):
        load(path)
