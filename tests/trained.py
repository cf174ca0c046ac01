"""Small networks of four families, trained once on FashionMNIST and cached as safetensors, for the slow tests."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.datasets import ImageDataset
from core.export import load, save
from core.models import Recipe
from core.training import train


def conv_bn(inside: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class ResidualBlock(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(inside, out, stride=stride), conv_bn(out, out)
        self.skip = conv_bn(inside, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.skip(x))


class InvertedResidual(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        hidden = inside * 4
        self.expand, self.project = conv_bn(inside, hidden, 1), conv_bn(hidden, out, 1)
        self.depthwise = conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.same = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        return x + y if self.same else y


class DenseLayer(nn.Module):
    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inside), nn.Conv2d(inside, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Head(nn.Module):
    def __init__(self, features: nn.Sequential, width: int) -> None:
        super().__init__()
        self.features, self.fc = features, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for inside, out, pool in ((1, 32, True), (32, 64, False), (64, 64, True), (64, 128, False)):
        layers += [conv_bn(inside, out), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return Head(nn.Sequential(*layers), 128)


def resnet() -> nn.Module:
    blocks = [ResidualBlock(32, 32, 1), ResidualBlock(32, 64, 2), ResidualBlock(64, 64, 1), ResidualBlock(64, 128, 2)]
    return Head(nn.Sequential(conv_bn(1, 32, stride=2), nn.ReLU(), *blocks, ResidualBlock(128, 128, 1)), 128)


def mobile() -> nn.Module:
    blocks = [InvertedResidual(24, 24, 1), InvertedResidual(24, 48, 2), InvertedResidual(48, 48, 1)]
    last = [InvertedResidual(48, 96, 2), InvertedResidual(96, 96, 1)]
    return Head(nn.Sequential(conv_bn(1, 24, stride=2), nn.ReLU6(), *blocks, *last), 96)


def dense() -> nn.Module:
    first = [DenseLayer(32 + 16 * i, 16) for i in range(4)]
    between = [nn.BatchNorm2d(96), nn.ReLU(), nn.Conv2d(96, 64, 1, bias=False), nn.AvgPool2d(2)]
    second = [DenseLayer(64 + 16 * i, 16) for i in range(4)]
    return Head(
        nn.Sequential(conv_bn(1, 32, stride=2), nn.ReLU(), *first, *between, *second, nn.BatchNorm2d(128), nn.ReLU()),
        128,
    )


FAMILIES = {"vgg": vgg, "resnet": resnet, "mobile": mobile, "dense": dense}


def trained(family: str, dataset: ImageDataset, cache: Path, epochs: int = 3) -> nn.Module:
    """The network of a family, trained once (a minute or two on one core) and then read from ``cache``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = FAMILIES[family]()
    path = cache / f"{family}-{epochs}.safetensors"
    if path.is_file():
        return load(path, factory=lambda: net)
    train(net, dataset, Recipe(epochs=epochs, batch_size=128, lr=0.1, weight_decay=5e-4, augment=False))
    save(net, path)
    return net
