"""Least-squares never returns what is not finite, fits what the network computes, and is never worse than its prior."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import Result, compress
from core.decompositions.least_squares import LeastSquares
from core.errors import UsageError
from core.moments import Moments


class Padding(nn.Conv2d):
    """Pads in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 0, 1, 0)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardised(nn.Conv2d):
    """Standardises its weight."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / w.std((1, 2, 3), keepdim=True), self.bias, 1, self.padding)


class Scaled(nn.Linear):
    """Scales what goes in and what comes out."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * F.linear(2.0 * x, self.weight, self.bias)


class Unbiased(nn.Conv2d):
    """Takes no bias, whoever gives it one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.stride)


class Gate(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(size, 4, 1), nn.Conv2d(4, size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 12), nn.Linear(3, 12), nn.Linear(12, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.left(a) + self.right(b)))
        return out


def dead(layer: Any, *which: int) -> Any:
    """Some outputs of a layer that a ReLU behind it never lets through."""
    layer.bias.data[list(which) or slice(None)] = -100.0
    return layer


def constant(layer: Any, *which: int) -> Any:
    layer.weight.data[list(which)] = 0.0
    layer.bias.data[list(which)] = 3.7
    return layer


def convolutions(*inside: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), *inside, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
    )


def nets() -> dict[str, nn.Module]:
    return {
        "dead relus": nn.Sequential(dead(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 5)),
        "some dead relus": nn.Sequential(dead(nn.Linear(6, 8), 0, 3, 5), nn.ReLU(), nn.Linear(8, 5)),
        "constant channels": convolutions(constant(nn.Conv2d(12, 12, 3), 0, 1, 7), nn.ReLU(), nn.Conv2d(12, 12, 1)),
        "relu6 made constant": convolutions(
            constant(nn.Conv2d(12, 12, 1), 2, 4), nn.ReLU6(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU6(),
            nn.Conv2d(12, 12, 1),
        ),
        "dead gate": convolutions(Gate(12), nn.Conv2d(12, 12, 3)),
        "pads itself": convolutions(Padding(12, 12, 3), nn.ReLU(), Padding(12, 12, 3)),
        "standardises": convolutions(Standardised(12, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 1)),
        "scales": nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Scaled(16, 12), nn.ReLU(), Scaled(12, 5)),
        "unbiased": convolutions(nn.Conv2d(12, 12, 3), nn.ReLU(), Unbiased(12, 12, 3, bias=False), nn.ReLU()),
        "reflects": convolutions(nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        "two inputs": Two(),
    }  # fmt: skip


CASES = (
    "dead relus", "some dead relus", "constant channels", "relu6 made constant", "dead gate", "pads itself",
    "standardises", "scales", "unbiased", "reflects", "two inputs",
)  # fmt: skip


def make(case: str) -> tuple[nn.Module, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = nets()[case].eval()
        if case == "dead gate":
            dead(net.get_submodule("2").down)
        if case == "two inputs":
            return net, (torch.randn(64, 6), torch.randn(64, 3))
        rows = torch.randn(64, 6) if isinstance(net[0], nn.Linear) else torch.randn(64, 3, 10, 10)  # type: ignore[index]
        return net, rows


def run(model: nn.Module, x: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(*x) if isinstance(x, tuple) else model(x)
    return out


def error(net: nn.Module, result: Result, x: Any) -> float:
    return float((run(net, x) - run(result.model, x)).square().sum())


def test_the_table_is_complete() -> None:
    assert tuple(nets()) == CASES


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("case", CASES)
def test_it_is_finite_and_never_worse_than_the_merge_it_starts_from(case: str, ratio: float) -> None:
    net, x = make(case)
    prior = compress(net, x, ratio=ratio, options={"threshold": 0.45})
    found = compress(net, x, ratio=ratio, decomposition="least-squares", calibration=x)
    assert all(bool(torch.isfinite(p).all()) for p in found.model.parameters())
    assert error(net, found, x) <= error(net, prior, x) * (1 + 1e-5) + 1e-8


@pytest.mark.parametrize("case", ["pads itself", "scales", "unbiased", "two inputs", "reflects"])
def test_what_is_really_computed_is_fitted(case: str) -> None:
    """Half of the channels, fitted on what the layer's own forward does, are much better than the bare ones."""
    net, x = make(case)
    plain = compress(net, x, ratio=0.5, decomposition="none")
    found = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    assert error(net, found, x) < 0.6 * error(net, plain, x)
    assert not any("keeps the merged weights" in site.note for site in found.sites)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    net, x = make("some dead relus")
    wide = copy.deepcopy(net)
    wide[0].weight.data *= 300  # type: ignore[index]
    wide[2].weight.data /= 300  # type: ignore[index]
    half = copy.deepcopy(wide).to(dtype)
    found = compress(half, x[:4].to(dtype), ratio=0.5, decomposition="least-squares", calibration=x.to(dtype))
    assert all(bool(torch.isfinite(p).all()) for p in found.model.parameters())
    assert all(value < 1 for site in found.sites for value in site.reconstruction.values())


def test_inputs_that_do_not_vary_keep_their_prior() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator)
    x[:, 2] = 3.7
    t, prior = torch.randn(40, 3, generator=generator), torch.randn(3, 5, generator=generator)
    moments = Moments()
    moments.add(x[None], t[None])
    v, b = (part[0] for part in LeastSquares().solve(moments, prior[None]))
    torch.testing.assert_close(v[:, 2], prior[:, 2].double())
    torch.testing.assert_close(b, t.double().mean(0) - v @ x.double().mean(0), rtol=1e-5, atol=1e-5)
    moments = Moments()
    moments.add(torch.full((1, 40, 5), 0.1), t[None])
    assert torch.equal(LeastSquares().solve(moments, prior[None])[0][0], prior.double())


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.full((4, 6), torch.nan), "calibration has NaN or infinite values; leave those images out"),
        ([torch.randn(6), torch.randn(6)], r"calibration must be a tensor \(N, …\); torch.stack"),
        ((torch.randn(4, 6), torch.randn(4, 6)), r"calibration must be a tensor \(N, …\)"),
        ("images", r"calibration must be a tensor"),
        (torch.tensor(1.0), r"calibration must be a tensor"),
    ],
)
def test_calibration_that_is_none_is_one_sentence(calibration: Any, message: str) -> None:
    net, x = make("some dead relus")
    with pytest.raises(UsageError, match=message):
        compress(net, x, decomposition="least-squares", calibration=calibration)


def test_several_inputs_want_a_tuple_of_equal_length() -> None:
    net, x = make("two inputs")
    with pytest.raises(UsageError, match="a tuple of 2 tensors"):
        compress(net, x, decomposition="least-squares", calibration=x[0])
    with pytest.raises(UsageError, match="a different number of rows"):
        compress(net, x, decomposition="least-squares", calibration=(x[0], x[1][:5]))


class Shared(nn.Module):
    """A bias that two layers use, and one that is also a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.a, self.b = nn.Parameter(torch.randn(8, 16)), nn.Parameter(torch.randn(8, 16))
        self.both = nn.Parameter(torch.randn(8))
        self.second, self.head = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.first(x))
        two = F.linear(x, self.a, self.both) - F.relu(F.linear(0.5 * x, self.b, self.both))
        return two, self.head(F.relu(self.second(x) * self.second.bias))


@pytest.mark.parametrize("method", ["most-similar", "nmf", "least-squares"])
def test_a_bias_that_is_also_something_else_is_left_alone(method: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Shared().eval(), torch.randn(64, 6)
    net.first.weight.data[3:6], net.first.bias.data[3:6] = 0, torch.tensor([0.5, 0.6, 0.7])  # constants want a bias
    result = compress(net, x, ratio=0.5, decomposition=method, calibration=x)
    assert torch.equal(result.model.both, net.both)
    merged = {"first": result.model.second.bias, "head": result.model.head.bias}
    kept = [s.kept for s in result.sites if "second" in s.producers]
    assert torch.equal(merged["first"], net.second.bias[list(kept[0])] if kept else net.second.bias)
