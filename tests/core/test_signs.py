"""Signs, factors and means: channels that are proportional or constant are carried without loss through every sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from core.compress import Result, compress
from core.sidebyside import SideBySide


class Two(nn.Module):
    """Two convolutions of the same images, combined channel by channel, and a reader."""

    def __init__(self, combine: Callable[[Any, Tensor, Tensor], Tensor], size: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.reader = nn.Conv2d(3, size, 3), nn.Conv2d(3, size, 3), nn.Conv2d(size, 5, 1)
        self.slope = nn.Parameter(torch.linspace(-2, 2, size))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(F.relu(self.combine(self, self.a(x), self.b(x)))).mean((2, 3))


COMBINED: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "sum": lambda net, a, b: a + b,
    "difference": lambda net, a, b: a - b,
    "alpha": lambda net, a, b: torch.add(a, b, alpha=-0.7),
    "sub alpha": lambda net, a, b: torch.sub(a, b, alpha=2.5),
    "maximum": lambda net, a, b: torch.maximum(a, b),
    "side by side": lambda net, a, b: a - 0.5 * b,
    "parameter": lambda net, a, b: (a + b) * net.slope.view(-1, 1, 1),
    "minus parameter": lambda net, a, b: (a + b) - net.slope.view(-1, 1, 1),
    "parameter alpha": lambda net, a, b: torch.sub(a + b, net.slope[None, :, None, None], alpha=0.4),
}


def made(combine: str) -> tuple[Two, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Two(COMBINED[combine]).double().eval(), torch.randn(4, 3, 8, 8).double()


def loss(net: nn.Module, result: Result, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - result.model(x)).abs().max() / net(x).abs().max())


@pytest.mark.parametrize("combine", COMBINED)
def test_proportional_channels_are_merged_without_loss(combine: str) -> None:
    """The second half is a multiple of the first, in whatever both branches and the parameter add and multiply."""
    net, x = made(combine)
    for layer in (net.a, net.b):
        for value in (layer.weight.data, layer.bias.data):
            value[4:] = 0.5 * value[:4]  # smaller, so that l1 removes them
    net.slope.data[4:] = net.slope.data[:4] * (0.5 if "minus" in combine or "alpha" in combine else 1.0)
    result = compress(net, x, ratio=0.5)
    assert [site.kept for site in result.sites] == [(0, 1, 2, 3)]
    assert result.sites[0].approximate == ()
    assert loss(net, result, x) < 1e-9


@pytest.mark.parametrize("combine", ["sum", "difference", "alpha", "sub alpha", "minus parameter"])
def test_constant_channels_go_into_the_bias_with_their_sign(combine: str) -> None:
    net, x = made(combine)
    bn = nn.BatchNorm2d(8).double().eval()
    net.a = nn.Sequential(net.a, bn)  # means are known behind a batch norm
    net.b = nn.Sequential(net.b, nn.BatchNorm2d(8).double().eval())
    for branch, values in ((net.a, [3.0, 1.0, 2.0, 4.0]), (net.b, [-1.0, 2.0, -3.0, 0.5])):
        branch[0].weight.data[4:], branch[0].bias.data[4:] = 0.0, torch.tensor(values).double()
    result = compress(net, x, ratio=0.5)
    assert [site.kept for site in result.sites] == [(0, 1, 2, 3)]
    assert loss(net, result, x) < 1e-9


@pytest.mark.parametrize("method", ["most-similar", "nmf"])
def test_statistics_that_contradict_the_weights_do_no_harm(method: str) -> None:
    """W_odd = W_even/2 with the statistics of a batch norm that was never trained: proportional all the same."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)).double()
    net[0].weight.data[1::2] = net[0].weight.data[::2] / 2
    net.eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    options = {"hard": True} if method == "nmf" else {}
    result = compress(net, x, ratio=0.5, decomposition=method, options=options)
    assert result.sites[0].kept == (0, 2, 4, 6)
    assert loss(net, result, x) < 1e-6


@pytest.mark.parametrize(
    ("pad", "approximate"),
    [
        (nn.ConstantPad2d(1, 0.5), ("pad",)),
        (nn.ConstantPad2d(1, 0.0), ()),
        (nn.ZeroPad2d(1), ()),
        (nn.ReflectionPad2d(1), ()),
    ],
)
def test_padding_with_a_constant_is_called_approximate(pad: nn.Module, approximate: tuple[str, ...]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pad, nn.Conv2d(8, 5, 3)).eval()
    assert compress(net, torch.randn(1, 3, 8, 8), ratio=0.5).sites[0].approximate == approximate


class Skip(nn.Module):
    """A residual net whose skip is combined in a way that is no plain sum."""

    def __init__(self, combine: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 1)
        self.second, self.third = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)
        self.head, self.combine, self.slope = nn.Linear(12, 4), combine, nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(F.relu(self.stem(x))))
        return self.head(F.relu(self.combine(self, x, self.third(F.relu(self.second(x))))).mean((2, 3)))


SKIPS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "sum": COMBINED["sum"],
    "maximum": lambda net, a, b: torch.maximum(a, b),
    "minimum": lambda net, a, b: torch.minimum(a, b),
    "alpha": lambda net, a, b: torch.add(a, b, alpha=0.5),
}


@pytest.mark.parametrize("combine", SKIPS)
def test_the_correction_for_the_skip_is_that_of_a_sum_only(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corrected: dict[str, bool] = {}
    correction = SideBySide._lost_by_skip

    def spy(self: SideBySide, node: fx.Node, shape: torch.Size) -> Tensor | float:
        found = correction(self, node, shape)
        corrected[str(node)] = isinstance(found, Tensor)
        return found

    monkeypatch.setattr(SideBySide, "_lost_by_skip", spy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net, x = Skip(SKIPS[combine]).eval(), torch.randn(128, 3, 6, 6)
    prior = compress(net, x, ratio=0.5, options={"threshold": 0.45})
    found = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    assert loss(net, found, x) < 0.9 * loss(net, prior, x)
    assert corrected["third"] == (combine == "sum")
