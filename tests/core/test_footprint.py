"""Sizes as a function of the widths: those of the network that is really cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.compress import compress, prepare
from core.footprint import Size, footprint
from core.measure import sizes
from tests.core.nets import Plain
from tests.trained import FAMILIES

NETS = {**FAMILIES, "plain": Plain}


def example(name: str) -> torch.Tensor:
    side, channels = (28, 1) if name in FAMILIES else (8, 3)
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))


class Grouped(nn.Module):
    """A grouped convolution, a transposed one, a linear layer on three axes, one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, groups=2)
        self.up, self.twice = nn.ConvTranspose2d(12, 6, 2, stride=2), nn.Conv2d(6, 6, 1)
        self.last = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(torch.relu(self.grouped(torch.relu(self.first(x))))))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.last(x.flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize("of", ["params", "bytes"])
def test_biases_that_a_refit_adds_are_counted(of: Size) -> None:
    """Behind the convolutions of a dense network comes no batch norm that could take up a constant."""
    torch.manual_seed(0)
    net, x = FAMILIES["dense"]().eval(), torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    prepared = prepare(net, x[:1])
    found = footprint(prepared.channels, prepared.channels.sets, x[:1], of, gains=True)
    assert found.whole == pytest.approx(sizes(net, x[:1])[of])
    result = compress(prepared, x[:1], ratio=0.5, decomposition="least-squares", calibration=x)
    widths = np.array([len(site.kept) for site in result.sites])
    assert found.at(widths) == pytest.approx(sizes(result.model, x[:1])[of])


@pytest.mark.parametrize("of", ["params", "macs", "bytes"])
@pytest.mark.parametrize("name", [*NETS, "grouped"])
def test_it_is_that_of_the_cut_network(name: str, of: Size) -> None:
    torch.manual_seed(0)
    net, x = (Grouped() if name == "grouped" else NETS[name]()).eval(), example(name)
    prepared = prepare(net, x)
    found = footprint(prepared.channels, prepared.channels.sets, x, of)
    assert found.whole == pytest.approx(sizes(net, x)[of])
    for ratio in (0.3, 0.8):
        result = compress(prepared, x, ratio=ratio, decomposition="none")
        widths = np.array([len(site.kept) for site in result.sites])
        assert found.at(widths) == pytest.approx(sizes(result.model, x)[of]), ratio
        for number in range(len(widths)):
            c0, c1, c2 = found.along(number, widths)
            w = widths[number]
            assert c0 + c1 * w + c2 * w**2 == pytest.approx(found.at(widths))
