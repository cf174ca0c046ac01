"""Calibration images that do not fit into memory run in batches: the same result, and a bounded number in flight."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import core.refit
from core.channels import find_channels
from core.compress import Result, compress
from core.recalibration import recalibrate
from core.refit import images_at_a_time
from tests.core.nets import images, make
from tests.core.test_every_reader import Towers
from tests.trained import dense, resnet


def nets() -> dict[str, nn.Module]:
    made = {name: make(name)[0] for name in ("residual", "depthwise", "plain")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {**made, "dense": grey(dense()), "deep residual": grey(resnet())}


def grey(net: Any) -> nn.Module:
    """A network of three epochs' FashionMNIST, untrained, with statistics that fit."""
    first = net.features[0][0]
    net.features[0][0] = nn.Conv2d(3, first.out_channels, 3, 1, 1, bias=False)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
    net.train()(images(32))
    return net.eval()


NETS = ("residual", "depthwise", "plain", "dense", "deep residual")


def compressed(net: nn.Module, x: Any, **options: Any) -> Result:
    return compress(net, x[:1], ratio=0.5, decomposition="least-squares", options=options, calibration=x)


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(x)
    return found


def batches_of(count: int, net: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound memory so that so many images run together, and few of them may wait at a layer."""
    channels = find_channels(net, x[:1])
    monkeypatch.setattr(core.refit, "LIVE", 10**15)
    low, high = 1, 10**12
    while low < high:
        half = (low + high) // 2
        monkeypatch.setattr(core.refit, "LIVE", half)
        low, high = (half + 1, high) if images_at_a_time(channels, (x,)) < count else (low, half)
    monkeypatch.setattr(core.refit, "LIVE", low)
    assert images_at_a_time(channels, (x,)) == count


def test_the_table_is_complete() -> None:
    assert tuple(nets()) == NETS


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("recalibrated", [False, True])
def test_batches_give_what_one_run_gives(name: str, recalibrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = nets()[name].double(), images(45).double()
    whole = compressed(net, x, bn_recalibrate=recalibrated)
    batches_of(7, net, x, monkeypatch)
    parts = compressed(net, x, bn_recalibrate=recalibrated)
    torch.testing.assert_close(outputs(parts.model, x), outputs(whole.model, x), rtol=1e-5, atol=1e-5)
    for one, other in zip(parts.sites, whole.sites, strict=True):
        assert one.note == other.note == ""
        assert one.reconstruction == pytest.approx(other.reconstruction, rel=1e-5)


def test_batches_of_two_inputs_and_shared_layers_give_what_one_run_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Towers().double().eval(), tuple(torch.randn(2, 40, 3, 6, 6).double())
    arguments = {"ratio": 0.5, "decomposition": "least-squares", "calibration": x}
    whole = compress(net, x, **arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(core.refit, "LIVE", 400_000)
    assert images_at_a_time(find_channels(net, x), x) < 20
    parts = compress(net, x, **arguments)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(parts.model(*x), whole.model(*x), rtol=1e-5, atol=1e-5)


class InFlight:
    """Counts the images whose value at one layer is alive, in all networks that run."""

    def __init__(self) -> None:
        self.now = self.most = self.seen = 0

    def __call__(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self.now += len(output)
        self.seen += len(output)
        self.most = max(self.most, self.now)
        weakref.finalize(output, self._gone, len(output))

    def _gone(self, count: int) -> None:
        self.now -= count


COUNTER = InFlight()


class Counted(nn.ReLU):
    """Torch's ReLU, with a count."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        COUNTER(self, x, out)
        return out


Counted.__name__ = "ReLU"
Counted.__module__ = "torch.nn.counted"


def test_so_many_images_are_in_flight_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 3, padding=1), Counted())]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers, nn.Conv2d(8, 4, 3)).eval()
    most = []
    batches_of(4, net, images(64), monkeypatch)
    for count in (64, 256):
        COUNTER.__init__()  # type: ignore[misc]
        compressed(net, images(count))
        most.append(COUNTER.most)
        assert COUNTER.seen > 4 * 2 * count, "it is counted, and all images have been there"
    assert most[0] == most[1] <= 64
    monkeypatch.setattr(core.refit, "LIVE", 10**15)
    compressed(net, images(256))
    assert COUNTER.most >= 256, "one run holds them all"


def test_statistics_are_those_of_the_network_in_use() -> None:
    """Each norm's are the moments of what it reads once the norms before it have theirs."""
    net, x = grey(resnet()), 2 * images(50) + 0.3
    recalibrate(net, x)
    read: dict[nn.Module, Tensor] = {}
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_pre_hook(lambda m, given: read.update({m: given[0]})) for m in norms]
    outputs(net, x)
    for handle in handles:
        handle.remove()
    for norm in norms:
        rows = read[norm].double().movedim(1, -1).flatten(0, -2)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        torch.testing.assert_close(norm.running_mean.double(), rows.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), rows.var(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_a_time", [None, 6])
def test_the_old_statistics_count_for_so_many_images(at_a_time: int | None) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3)).double().eval()
    norm: Any = net[0]
    norm.running_mean.fill_(5.0)
    norm.running_var.fill_(7.0)
    x = images(20).double().mean((2, 3))
    recalibrate(net, x, shrinkage=10.0, at_a_time=at_a_time)
    torch.testing.assert_close(norm.running_mean, (20 * x.mean(0) + 10 * 5.0) / 30)
    torch.testing.assert_close(norm.running_var, (20 * x.var(0) + 10 * 7.0) / 30)


def test_a_norm_that_is_used_twice_has_the_mean_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(3 * x + 1)

    nets, x = [Twice().eval(), Twice().eval()], images(20).mean((2, 3))
    for net, at_a_time in zip(nets, (None, 6), strict=True):
        recalibrate(net, x, at_a_time=at_a_time)
        torch.testing.assert_close(net.norm.running_mean, (4 * x.mean(0) + 1) / 2)
        torch.testing.assert_close(net.norm.running_var, 5 * x.var(0))


class Squeezes(nn.Module):
    """Refuses a single image, as a squeeze without a dimension makes a batch norm do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.out = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.first(x).squeeze())))


def test_a_network_that_refuses_a_single_image_is_given_all_of_them() -> None:
    net, x = Squeezes().eval(), images(16)
    found = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    assert len(found.sites[0].kept) == 4
    assert found.sites[0].reconstruction["out"] < 1
