"""Networks that cannot be traced as a whole: the message names a part that can be compressed, and that works."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from core.compress import compress
from core.errors import ModelError


def words(part: str, shape: str) -> str:
    """What the message must say of a part."""
    own = rf"model\.{re.escape(part)} \(\d+% of the parameters\) on inputs {re.escape(shape)}"
    return rf"what can be compressed by itself is .*{own}.*\.model\.$"


class Picky(nn.Module):
    """What comes out depends on values, and the layers before it do not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.head(self.body(x).mean((2, 3)))
        return [row[row > 0].tolist() for row in y if bool(row.sum() > 0)]


def test_the_part_that_can_be_traced_is_named() -> None:
    with pytest.raises(ModelError, match=words("body", "(2, 3, 8, 8)")):
        compress(Picky().eval(), torch.randn(2, 3, 8, 8), ratio=0.5)


def test_a_part_that_is_called_twice_is_not_named() -> None:
    class Twice(Picky):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + super().forward(-x)

    with pytest.raises(ModelError, match=r"or wrap it with torch\.fx\.wrap\.$"):
        compress(Twice().eval(), torch.randn(2, 3, 8, 8), ratio=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_a_detector_names_its_backbone_which_can_be_compressed(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build = getattr(torchvision.models.detection, kind)
        model = build(weights=None, weights_backbone=None, num_classes=5).eval()
    images = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match=words("backbone", "(1, 3, 320, 320)")):
        compress(model, images, ratio=0.5)
    before = sum(p.numel() for p in model.backbone.parameters())
    model.backbone = compress(model.backbone, images, ratio=0.5).model
    assert sum(p.numel() for p in model.backbone.parameters()) < 0.4 * before
    with torch.no_grad():
        assert {"boxes", "scores", "labels"} <= set(model(images)[0])
    targets = [{"boxes": torch.tensor([[10.0, 10.0, 90.0, 90.0]]), "labels": torch.tensor([1])}] * 2
    sum(model.train()(images.expand(2, -1, -1, -1), targets).values()).backward()
