"""timm's networks, whose batch norms are subclasses that call ``F.batch_norm``, keep what torchvision's own keep."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from core.compress import compress

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def share_left(net: nn.Module) -> float:
    result = compress(net.eval(), IMAGES, ratio=0.5, decomposition="most-similar")
    assert len(result.skipped) == 1, result.skipped
    return 100 * sum(p.numel() for p in result.model.parameters()) / sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "like"),
    [
        pytest.param("mobilenetv3_large_100", "mobilenet_v3_large"),
        pytest.param("efficientnet_b0", "efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("mobilenetv4_conv_small", "mobilenet_v3_large", marks=pytest.mark.slow),
        pytest.param("regnety_004", "regnet_y_400mf", marks=pytest.mark.slow),
        pytest.param("densenet121", "densenet121", marks=pytest.mark.slow),
        pytest.param("repvgg_a0", "vgg16_bn", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_timm_keeps_what_torchvisions_keeps(name: str, like: str) -> None:
    with torch.random.fork_rng(devices=[]):
        theirs = torchvision.models.get_model(like, num_classes=10)
        found = timm.create_model(name, num_classes=10)
    assert abs(share_left(found) - share_left(theirs)) < 2
