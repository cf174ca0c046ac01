"""Least squares on networks trained here: what half of the channels cost, without labels or training."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from core.compress import compress
from core.datasets import ImageDataset
from core.measure import accuracy_and_loss
from tests.trained import trained

CACHE = Path(__file__).parents[2] / ".cache" / "trained"
INSIDE = ["features.*.conv1.0"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "sites", "most"),
    [
        ("vgg", None, 3.0),
        ("resnet", INSIDE, 3.0),
        ("resnet", None, 6.0),
        ("mobile", None, 8.0),
        ("dense", None, 8.0),
    ],
)
def test_half_of_the_channels_cost_few_points(
    fashion_mnist: ImageDataset, family: str, sites: list[str] | None, most: float
) -> None:
    net = trained(family, fashion_mnist, CACHE)
    images, labels = fashion_mnist.inputs("test")
    calibration = fashion_mnist.normalise(fashion_mnist.train.images[:256])

    def accuracy(model: nn.Module) -> float:
        return accuracy_and_loss(model, images, labels)[0]

    def compressed(method: str) -> nn.Module:
        arguments = {"ratio": 0.5, "sites": sites, "decomposition": method, "calibration": calibration}
        return compress(net, images[:1], **arguments).model  # type: ignore[arg-type]

    before, after = accuracy(net), accuracy(compressed("least-squares"))
    assert before > 88
    assert before - after <= most
    assert after > accuracy(compressed("none")) + 20, "the cut alone must hurt, or this shows nothing"
    if sites is None:
        left = sum(p.numel() for p in compressed("none").parameters()) / sum(p.numel() for p in net.parameters())
        assert left < 0.3
