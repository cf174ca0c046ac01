"""Small networks of every wiring, and their doubled versions with planted twins."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.planting import randomise, split_columns, twin_norm, twin_rows

N = 8


def factors(signed: bool, size: int = N, seed: int = 1) -> Tensor:
    """Row factors of the twins, 0.02 … 0.1, with both signs where a batch norm follows."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(size, generator=generator) * 0.08 + 0.02
    return f * (torch.randint(0, 2, (size,), generator=generator) * 2 - 1) if signed else f


def scales(size: int = N) -> Tensor:
    """How large twins come out behind a batch norm, 0.5 … 1.5."""
    return torch.linspace(0.5, 1.5, size)


class Misnamed(nn.Conv2d):
    """Looks like torch's own convolution, and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


Misnamed.__module__, Misnamed.__name__ = "torch.nn.elsewhere", "Conv2d"


class Plain(nn.Module):
    """conv-bn-relu-pool twice, flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.conv2, self.bn2 = nn.Conv2d(N, N, 3, padding=1), nn.BatchNorm2d(N)
        self.fc1, self.fc2 = nn.Linear(N * 4, N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.avg_pool2d(F.leaky_relu(self.bn2(self.conv2(x)), 0.1), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def double_plain(net: Plain) -> Plain:
    twin_rows(net.conv1, f := factors(True))
    twin_norm(net.bn1, f, scales())
    split_columns(net.conv2, scales())
    twin_rows(net.conv2, f)
    twin_norm(net.bn2, f, scales())
    split_columns(net.fc1, scales(), repeat=4)
    twin_rows(net.fc1, g := factors(False))
    split_columns(net.fc2, g)
    return net


class NoNorm(nn.Module):
    """Convolutions with bias and no batch norm; PReLU with one slope."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act = nn.Conv2d(3, N, 3), nn.PReLU()
        self.conv2, self.fc = nn.Conv2d(N, N, 3, stride=2), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


def double_no_norm(net: NoNorm) -> NoNorm:
    f = factors(False)
    twin_rows(net.conv1, f)
    split_columns(net.conv2, f)
    twin_rows(net.conv2, f)
    split_columns(net.fc, f)
    return net


class Residual(nn.Module):
    """A stem and two post-activation blocks tied by sums; everything on the stream is one coupled set."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.conv1, self.bn1 = nn.Conv2d(N, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.conv2, self.bn2 = nn.Conv2d(N, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(F.relu(x + y).mean((2, 3)))


def double_residual(net: Residual) -> Residual:
    f, s = factors(True), scales()
    twin_rows(net.stem, f)
    twin_norm(net.bn0, f, s)
    split_columns(net.conv1, s)
    twin_rows(net.conv1, f)
    twin_norm(net.bn1, f, s.flip(0))
    split_columns(net.conv2, s.flip(0))
    twin_rows(net.conv2, f)
    twin_norm(net.bn2, f, s)  # the same scale as the stem: the sum stays proportional
    split_columns(net.fc, s)
    return net


class PreActivation(nn.Module):
    """bn-relu-conv blocks on a raw residual stream; each reader has a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, N, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(N), nn.Conv2d(N, N, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(N), nn.Conv2d(N, N, 3, padding=1, bias=False)
        self.bn, self.fc = nn.BatchNorm2d(N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


def double_pre_activation(net: PreActivation) -> PreActivation:
    f, s = factors(True), scales()
    twin_rows(net.stem, f)
    twin_norm(net.bn1, f, s)
    split_columns(net.conv1, s)
    twin_rows(net.conv1, g := factors(True, seed=5))
    twin_norm(net.bn2, g, s)
    split_columns(net.conv2, s)
    twin_rows(net.conv2, f)
    twin_norm(net.bn, f, s.flip(0))
    split_columns(net.fc, s.flip(0))
    return net


class Depthwise(nn.Module):
    """A MobileNet block: pointwise, depthwise, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(3, N, 1, bias=False), nn.BatchNorm2d(N)
        self.depthwise, self.bn2 = nn.Conv2d(N, N, 3, padding=1, groups=N, bias=False), nn.BatchNorm2d(N)
        self.project, self.fc = nn.Conv2d(N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.expand(x)))
        x = F.relu(self.bn2(self.depthwise(x)))
        return self.fc(F.relu(self.project(x)).mean((2, 3)))


def double_depthwise(net: Depthwise) -> Depthwise:
    f, s, k = factors(True), scales(), factors(True, seed=7) * 10
    twin_rows(net.expand, f)
    twin_norm(net.bn1, f, s)
    twin_rows(net.depthwise, k)
    net.depthwise.groups = net.depthwise.in_channels = 2 * N
    twin_norm(net.bn2, k * s, s.flip(0))
    split_columns(net.project, s.flip(0))
    twin_rows(net.project, g := factors(False))
    split_columns(net.fc, g)
    return net


class SqueezeExcite(nn.Module):
    """A convolution whose channels are scaled by a gate computed from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.fc1, self.fc2 = nn.Conv2d(N, 4, 1), nn.Conv2d(4, N, 1)
        self.last, self.fc = nn.Conv2d(N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc(F.relu(self.last(x)).mean((2, 3)))


def double_squeeze_excite(net: SqueezeExcite) -> SqueezeExcite:
    f, s = factors(True), scales()
    twin_rows(net.conv, f)
    twin_norm(net.bn, f, s)
    split_columns(net.fc1, s)
    twin_rows(net.fc1, h := factors(False, 4))
    split_columns(net.fc2, h)
    twin_rows(net.fc2, torch.ones(N))  # a gate must be equal, not proportional
    split_columns(net.last, s)
    twin_rows(net.last, g := factors(False))
    split_columns(net.fc, g)
    return net


class Concat(nn.Module):
    """Two branches joined by concatenation, a batch norm before the next convolution, as in a dense net."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.bn_left = nn.Conv2d(3, N, 3, padding=1, bias=False), nn.BatchNorm2d(N)
        self.right = nn.Conv2d(3, N, 1)
        self.last, self.fc = nn.Conv2d(2 * N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.relu(self.bn_left(self.left(x))), F.relu(self.right(x))
        return self.fc(F.relu(self.last(torch.cat([left, right], 1))).mean((2, 3)))


def double_concat(net: Concat) -> Concat:
    f, s, r = factors(True), scales(), factors(False, seed=3)
    twin_rows(net.left, f)
    twin_norm(net.bn_left, f, s)
    twin_rows(net.right, r)
    v = net.last.weight.data
    halves = [nn.Conv2d(N, N, 1), nn.Conv2d(N, N, 1)]
    for half, part, scale in zip(halves, v.split(N, 1), (s, r), strict=True):
        half.weight.data = part
        split_columns(half, scale)
    net.last.weight.data = torch.cat([h.weight.data for h in halves], 1)
    net.last.in_channels = 4 * N
    twin_rows(net.last, g := factors(False))
    split_columns(net.fc, g)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module]]] = {
    "plain": (Plain, double_plain),
    "no-norm": (NoNorm, double_no_norm),
    "residual": (Residual, double_residual),
    "pre-activation": (PreActivation, double_pre_activation),
    "depthwise": (Depthwise, double_depthwise),
    "squeeze-excite": (SqueezeExcite, double_squeeze_excite),
    "concat": (Concat, double_concat),
}


def make(name: str) -> tuple[nn.Module, nn.Module]:
    """The network called ``name`` and its doubled version, which computes the same function."""
    build, double = NETS[name]
    net = randomise(build())
    with torch.no_grad():
        return net, double(copy.deepcopy(net))


def images(count: int = 4, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))
