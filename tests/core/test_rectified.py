"""Fits to what a ReLU lets through: what counts falls with every fit, wherever the ReLU stands."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import core.refit
from core.channels import find_channels
from core.compress import compress
from core.decompositions.least_squares import LeastSquares
from core.graph.trace import twin
from core.moments import Moments
from core.rectified import Rectified
from core.refit import Fitter
from core.sidebyside import SideBySide


def test_what_counts_falls_with_every_fit() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=rng, dtype=torch.float64)
    t = (x @ torch.randn(6, 5, generator=rng, dtype=torch.float64)).sin() * 2
    x = x[:, :4]
    scale = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    level = torch.randn(400, 5, generator=rng, dtype=torch.float64)
    behind = Rectified(scale, level, t * scale + level > 0)
    method = LeastSquares(damping=1e-12)
    prior = torch.zeros(1, 5, 4, dtype=torch.float64)
    moments = Moments()
    moments.add(x[None], t[None])
    counted, rectified = [], []
    for _ in range(30):
        v, b = method.solve(moments, prior)
        given = x @ v[0].T + b
        asked = behind.asked(given, behind.beside(t, 1))
        assert asked.isfinite().all()
        counted.append(float((asked - given).square().sum()))
        apart = (F.relu(t * scale + level) - F.relu(given * scale + level))[:, scale != 0] / scale[scale != 0]
        rectified.append(float(apart.square().sum()))
        moments = moments.without_targets()
        moments.add_targets(x[None], asked[None])
    assert all(late <= early + 1e-9 for early, late in pairwise(counted))
    assert all(r <= c + 1e-9 for r, c in zip(rectified, counted, strict=True)), "never below what the ReLU gives"
    assert counted[-1] < 0.8 * counted[0]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv, self.norm2 = nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.skip, self.head = nn.Conv2d(3, 24, 1), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.skip(x)
        y = F.relu(self.norm2(self.conv(F.relu(self.norm1(self.first(x))))) + y)
        return self.head(y.mean((2, 3)))


def conv(**options: Any) -> nn.Module:
    first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(12, 24, 3, **{"padding": 1, "bias": False, **options}), nn.BatchNorm2d(24))
    return nn.Sequential(
        *first, *second, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def linear() -> nn.Module:
    layers = [nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 20), nn.Dropout(), nn.ReLU6(), nn.Linear(20, 3)]
    return nn.Sequential(*layers)


NETS = {
    "conv": conv,
    "grouped": lambda: conv(groups=2),
    "with a bias": lambda: conv(bias=True),
    "residual": Residual,
    "linear": linear,
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = NETS[name]()
    shape = (96, 5) if name == "linear" else (24, 3, 8, 8)
    x = torch.randn(shape)
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 1.0
            norm.weight.copy_(torch.randn_like(norm.weight))
            norm.bias.copy_(0.5 * torch.randn_like(norm.bias) - 0.5)
        net.train()(x)
    return net.eval(), x


def relu_of(net: nn.Module, x: Tensor) -> Tensor:
    """What the last ReLU gives: the input of the last layer."""
    seen: list[Tensor] = []
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


def error(net: nn.Module, x: Tensor, first: str, **options: Any) -> float:
    sites = [first]
    found = compress(
        net, x[:1], ratio=0.5, decomposition="least-squares", calibration=x, sites=sites, options=options
    ).model
    return float((relu_of(found, x) - relu_of(net, x)).square().mean())


@pytest.mark.parametrize("name", list(NETS))
def test_what_the_relu_gives_is_nearer(name: str) -> None:
    net, x = made(name)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first = "first" if name == "residual" else "0"
    plain, once, often = (error(net, x, first, rectified=n) for n in (0, 1, 6))
    assert once < plain
    assert often < plain
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", list(NETS))
def test_it_knows_what_the_relu_reads(name: str) -> None:
    net, x = made(name)
    channels = find_channels(net, x)
    nothing = torch.empty(0, dtype=torch.long)
    fitter = Fitter(twin(net), channels, nothing, LeastSquares())
    batch = SideBySide(fitter.pair, (x,))
    layer = {"residual": "conv", "linear": "2"}.get(name, "3")
    place, node = next(
        (i, n)
        for i, nodes in enumerate(fitter.pair.order)
        for n in nodes
        if n.op == "call_module" and n.target == layer
    )
    with torch.no_grad():
        batch.run_until(place)
        behind = Rectified.behind(batch, node)
        assert behind is not None
        view = [1, -1] + [1] * (batch.env[node].dim() - 2)
        u = batch.env[node] * behind.scale.view(view) + behind.level
        assert torch.equal(behind.live, u > 0)
        given = u.relu() if name != "linear" else u.clamp(0, 6)
        assert torch.allclose(given.mean((2, 3)) if given.dim() == 4 else given, relu_of(net, x), atol=1e-5)


def test_batches_give_what_all_images_together_give(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = made("residual")
    options: dict[str, Any] = {
        "decomposition": "least-squares",
        "ratio": 0.5,
        "calibration": x,
        "options": {"rectified": 2},
    }
    whole = compress(net, x[:1], **options).model
    monkeypatch.setattr(core.refit, "LIVE", 150_000)
    streamed = compress(net, x[:1], **options).model
    with torch.no_grad():
        assert torch.allclose(whole(x), streamed(x), rtol=1e-4, atol=1e-5)


def test_where_no_relu_alone_reads_a_layer_nothing_changes() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(5, 12), nn.Linear(12, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.two(F.relu(self.one(x)))
            return self.head(F.relu(y) + 0.1 * y)

    torch.manual_seed(0)
    net, x = Both().eval(), torch.randn(64, 5)
    found = [
        compress(net, x[:1], decomposition="least-squares", calibration=x, sites=["one"], options={"rectified": n})
        for n in (0, 3)
    ]
    one, other = (list(r.model.parameters()) for r in found)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_formats(dtype: torch.dtype) -> None:
    net, x = made("conv")
    net, x = net.to(dtype), x.to(dtype)
    assert error(net, x, "0", rectified=2) < 1.05 * error(net, x, "0", rectified=0)


def test_filters_of_few_terms_are_fitted_to_the_same() -> None:
    torch.manual_seed(0)
    blocks = [(3, 16), (16, 24), (24, 24)]
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b in blocks]
    net, x = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)), torch.randn(48, 3, 8, 8)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
        nn.init.constant_(norm.bias, -0.5)
    net(x)
    net.eval()

    def away(fits: int) -> float:
        options = {"rectified": fits, "decoupling": 0.5}
        found = compress(net, x[:1], ratio=0.0, decomposition="least-squares", calibration=x, options=options).model
        return float((relu_of(found, x) - relu_of(net, x)).square().mean())

    assert away(6) < 0.2 * away(0)
