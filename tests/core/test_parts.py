"""Channels that are taken apart and joined again: chunks, gates of two halves, channel shuffle."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import compress
from tests.core.nets import images
from tests.planting import randomise


class Gate(nn.Module):
    """Half of the channels gates the other half: unit i is row i and row i + 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.bn(self.conv(x)).chunk(2, 1)
        return self.last(F.relu(a) * torch.sigmoid(b))


class Branches(nn.Module):
    """Each half of the channels is read by a layer of its own, so both must lose as many."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.left, self.right = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.bn(self.conv(x))).chunk(2, 1)
        return self.left(a) + self.right(b)


class Shuffle(nn.Module):
    """A channel shuffle in front of a grouped convolution: channel i of every group stands or falls together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 3, groups=2)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.last(F.relu(self.grouped(x)))


KEPT = {"Gate": [0, 1, 2, 3], "Branches": [0, 1, 2, 3, 8, 9, 10, 11], "Shuffle": [0, 1, 4, 5]}


def with_twins(net: nn.Module, factor: float = 0.05) -> nn.Module:
    """Make channel i + step of the first layer a twin of channel i with smaller rows: half of them is enough."""
    net = randomise(net)
    step = 2 if isinstance(net, Shuffle) else 4
    with torch.no_grad():
        for start in range(0, 16, 2 * step):
            own, twin = slice(start, start + step), slice(start + step, start + 2 * step)
            net.conv.weight[twin] = net.conv.weight[own] * factor
            if net.conv.bias is not None:
                net.conv.bias[twin] = net.conv.bias[own] * factor
            if isinstance(net, Shuffle):
                continue
            net.bn.weight[twin], net.bn.bias[twin] = net.bn.weight[own], net.bn.bias[own]
            net.bn.running_mean[twin] = net.bn.running_mean[own] * factor
            net.bn.running_var[twin] = (net.bn.running_var[own] + net.bn.eps) * factor**2 - net.bn.eps
    return net


@pytest.mark.parametrize("kind", [Gate, Branches, Shuffle])
def test_twins_in_parts_are_merged_without_loss(kind: type[nn.Module]) -> None:
    net = with_twins(kind())
    before = copy.deepcopy(net.state_dict())
    result = compress(net, images(), ratio=0.5, sites=["conv"])
    assert list(result.sites[0].kept) == KEPT[kind.__name__]
    assert result.model.conv.out_channels == 8
    assert float((result.model(images()) - net(images())).abs().max().detach()) < 1e-5
    cut = compress(net, images(), ratio=0.5, sites=["conv"], decomposition="none").model
    assert float((cut(images()) - net(images())).abs().max().detach()) > 1e-2
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("method", ["nmf", "least-squares"])
@pytest.mark.parametrize("kind", [Gate, Branches, Shuffle])
def test_other_methods_run_on_parts(kind: type[nn.Module], method: str) -> None:
    result = compress(randomise(kind()), images(), ratio=0.5, decomposition=method, calibration=images(32))
    assert torch.isfinite(result.model(images())).all()


def test_three_parts_of_sixteen_are_no_even_parts() -> None:
    class Uneven(Branches):
        def forward(self, x: Tensor) -> Tensor:
            a, b, c = self.bn(self.conv(x)).chunk(3, 1)
            return a.sum() + b.sum() + c.sum() + self.left(x.repeat(1, 3, 1, 1)[:, :8])

    from core.channels import find_channels

    assert "'chunk' takes these channels apart" in find_channels(Uneven(), images()).skipped["conv"]
