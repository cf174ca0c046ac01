"""``lenet-300-100``: the multi-layer perceptron 784-300-100-10 (LeCun et al. 1998, section III.C.2), with ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from core.models.base import register


class LeNet300100(nn.Module):
    """Three linear layers ``ip1``, ``ip2``, ``ip3`` on the flattened 28×28 image."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.ip1 = nn.Linear(in_channels * 28 * 28, 300)
        self.relu1 = nn.ReLU()
        self.ip2 = nn.Linear(300, 100)
        self.relu2 = nn.ReLU()
        self.ip3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, 28, 28) to logits (N, num_classes)."""
        x = self.relu1(self.ip1(self.flatten(x)))
        x = self.relu2(self.ip2(x))
        logits: Tensor = self.ip3(x)
        return logits


@register("lenet-300-100")
def lenet_300_100(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """LeNet-300-100: 266,610 parameters for one channel and ten classes."""
    return LeNet300100(num_classes, in_channels)
