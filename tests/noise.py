"""A setting of docs/proof.md's writer that needs no data set."""

from __future__ import annotations

from functools import cached_property

import torch

from benchmarks.proof.setting import Setting
from core.datasets import ImageDataset
from core.datasets.base import Split


class Small(Setting):
    """A setting with 200 images of noise in ten classes."""

    @cached_property
    def dataset(self) -> ImageDataset:
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (200, 1, 28, 28), generator=rng, dtype=torch.uint8)
        labels = torch.arange(200) % 10
        train, test = Split(images[:150], labels[:150]), Split(images[150:], labels[150:])
        return ImageDataset("noise", train, test, test, (0.5,), (0.5,), tuple("0123456789"))
