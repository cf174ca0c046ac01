"""Building blocks of networks that people use and torchvision does not have: wirings for `tests.core.wirings`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inside: int, out: int, size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, out, size, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.shortcut = Unit(width, width, 3), Unit(width, width, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """Half of the channels go through residual blocks, and the last layer reads every stage of them, and both halves.

    So it reads the channels of one half once and those of the other, tied by the sums, three times.
    """

    def __init__(self, inside: int, out: int, depth: int = 2, *, shortcut: bool = True) -> None:
        super().__init__()
        half = out // 2
        self.cv1, self.cv2 = Unit(inside, 2 * half), Unit((2 + depth) * half, out)
        self.m = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))


class C2fNet(nn.Module):
    """A small classifier of two such blocks."""

    def __init__(self, width: int = 8, *, shortcut: bool = True) -> None:
        super().__init__()
        self.stem = Unit(3, width, 3)
        self.one, self.two = C2f(width, width, shortcut=shortcut), C2f(width, 2 * width, 1, shortcut=shortcut)
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.one(self.stem(x))).mean((2, 3)))


class Branches(nn.Module):
    """Inception-ResNet's block: branches side by side, added to what they read."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 1)
        self.big, self.small = nn.Conv2d(width, width - 2, 1), nn.Conv2d(width, 2, 1)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([self.big(x), self.small(x)], 1)
        return self.fc(F.relu(x + self.mix(F.relu(x))).mean((2, 3)))


class PaddedLast(nn.Module):
    """Channels come last where images are padded, as in front of windows."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv, self.mlp, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(F.relu(self.conv(x)).permute(0, 2, 3, 1), (0, 0, 0, 1, 1, 0))
        return self.fc(F.relu(self.mlp(x)).mean((1, 2)))


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation and a forward of its own, that calls torch's function with what it holds."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        batch = self.training or (self.running_mean is None and self.running_var is None)
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, batch, 0.1, self.eps)
        return F.relu(x, inplace=True)


class Whitening(nn.Module):
    """Batch norm of somebody's own making: other names, no class of torch's."""

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("centre", torch.linspace(-1, 1, width))
        self.register_buffer("spread", torch.linspace(0.5, 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, running_mean=self.centre, running_var=self.spread, weight=self.gain, bias=self.shift, eps=1e-3
        )


class OwnNorms(nn.Module):
    """Functional batch norms: a subclass with an activation, and one of other names."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, bias=False), NormAct(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3), Whitening(width)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x))))).mean((2, 3)))


class StandardisedConv2d(nn.Conv2d):
    """A convolution that brings the rows of its weight to mean 0 and variance 1 whenever it is called."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Standardised(nn.Module):
    """Such a convolution between ordinary layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 3), StandardisedConv2d(width, width, 3)
        self.conv3, self.conv4 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(F.relu(self.conv4(F.relu(self.conv3(x)))).mean((2, 3)))
