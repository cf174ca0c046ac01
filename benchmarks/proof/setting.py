"""How much is measured, on which machine, and what a part of the page is."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from core.datasets import ImageDataset, load_dataset

CALIBRATION = 256
DATASET = "fashion-mnist"


class NotRunError(Exception):
    """Something that a table needs is not here; the message says what, and where it comes from."""


@dataclass(frozen=True)
class Setting:
    """What a run of the proof has to work with.

    Attributes:
        full: as long as it takes, or within 20 minutes.
        cache: folder of the trained networks.
        pictures: folder of the page's pictures.
    """

    full: bool
    cache: Path
    pictures: Path = Path("docs")

    @property
    def images(self) -> int:
        """So many of the test images are looked at."""
        return 10_000 if self.full else 2_000

    @property
    def command(self) -> str:
        """What runs it."""
        return "make proof-full" if self.full else "make proof"

    @cached_property
    def dataset(self) -> ImageDataset:
        """FashionMNIST.

        Raises:
            DataError: it is not on this machine and cannot be downloaded.
        """
        return load_dataset(DATASET)

    def calibration(self, seed: int = 0, count: int = CALIBRATION) -> tuple[torch.Tensor, torch.Tensor]:
        """Training images (count, 1, 28, 28), normalised, and their labels (count,), drawn by ``seed``."""
        train = self.dataset.train
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
        return self.dataset.normalise(train.images[rows]), train.labels[rows]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        head: of its columns, the first one left-aligned.
        rows: as many words each.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        assert all(len(row) == len(self.head) for row in self.rows)
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Section:
    """A part of the page as one run made it.

    Attributes:
        measured: on how many images, with which seeds, in words.
        parts: paragraphs, lists, tables and pictures, in their order.
        versions: packages beside torch whose version matters.
    """

    measured: str
    parts: Sequence[str | Table] = field(default_factory=list)
    versions: Sequence[str] = ()


def machine() -> str:
    """The processor, how many cores of it there are, and the memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores shared with other work, one thread"


def versions(names: Sequence[str]) -> str:
    """Python's, torch's and those of ``names``."""
    found = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
