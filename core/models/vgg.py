"""``vgg16`` (CIFAR variant, 13 convolutions) and ``vgg-small`` (7 convolutions, for two CPU cores).

Simonyan & Zisserman, ICLR 2015, with batch norm after each convolution. Key names: ``feature.{i}`` is one
sequence of convolution (without bias), batch norm, ReLU and max pooling; ``classifier.{i}`` the linear layers.
The average over what is left of the image makes any input size work that survives the poolings (16×16 at least).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from core.models.base import register

POOL = 0
VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
SMALL = (16, POOL, 32, 32, POOL, 64, 64, POOL, 128, 128)


class VGG(nn.Module):
    """Convolutions of the given ``widths`` (``POOL`` halves the image), global average, linear layers.

    Args:
        hidden: widths of the classifier's hidden layers, each followed by batch norm and ReLU.
    """

    def __init__(
        self, widths: Sequence[int], hidden: Sequence[int] = (), num_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.feature = _features(widths, in_channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = _classifier([widths[-1], *hidden], num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W), H and W at least 2 to the number of poolings, to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.feature(x))))
        return logits


def _features(widths: Sequence[int], in_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        if width == POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        in_channels = width
    return nn.Sequential(*layers)


def _classifier(widths: Sequence[int], num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@register("vgg16")
def vgg16(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-16 for 32×32 images: four max poolings, then the mean of the last 2×2; one hidden layer of 512."""
    return VGG(VGG16, (512,), num_classes, in_channels)


@register("vgg-small")
def vgg_small(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Seven convolutions of 16 to 128 channels and one linear layer: trains in minutes on two cores."""
    return VGG(SMALL, (), num_classes, in_channels)
