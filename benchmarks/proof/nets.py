"""Networks that only the proof trains."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

WIDTHS = (784, 300, 200, 100, 50)


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Four hidden layers, small enough for thousands of trials."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inside, out in pairwise(WIDTHS):
        layers += [nn.Linear(inside, out), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 10))
