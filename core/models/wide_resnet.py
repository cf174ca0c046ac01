"""``wrn-40-4``: the pre-activation wide residual network (Zagoruyko & Komodakis, BMVC 2016), without dropout.

Key names: ``conv1``, ``block{1..3}.layer.{i}.bn1|conv1|bn2|conv2|convShortcut``, ``bn1``, ``fc``.
"""

from __future__ import annotations

from torch import Tensor, nn

from core.models.base import register


class BasicBlock(nn.Module):
    """shortcut + conv2(ReLU(bn2(conv1(ReLU(bn1(x)))))).

    Where the number of channels changes, the shortcut is a 1×1 convolution of ReLU(bn1(x)); elsewhere it is x
    itself.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        active = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        branch: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return shortcut + branch


class Stage(nn.Module):
    """Blocks of one width, as ``layer.{i}``; the first one changes the shape."""

    def __init__(self, channels_in: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = BasicBlock(channels_in, channels, stride)
        self.layer = nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """6n + 4 layers: three stages of n blocks with 16, 32 and 64 times ``widen`` channels."""

    def __init__(self, depth: int, widen: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = Stage(16, 16 * widen, blocks, stride=1)
        self.block2 = Stage(16 * widen, 32 * widen, blocks, stride=2)
        self.block3 = Stage(32 * widen, 64 * widen, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64 * widen, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = self.relu(self.bn1(x))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@register("wrn-40-4")
def wrn_40_4(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """WRN-40-4: 8.9 M parameters."""
    return WideResNet(40, 4, num_classes, in_channels)
