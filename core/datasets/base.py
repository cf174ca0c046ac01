"""What a dataset is, the registry of them, and where their files are looked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import DataError, UsageError
from core.parts import DATASETS
from core.pixels import LARGE, Images, Mapped, Pixels, inputs_of, normalised

Progress = Callable[[str], None]
SplitName = Literal["train", "validation", "test"]
HELD_OUT = 0.1
"""Share of the training files that becomes the validation split."""


@dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        images: uint8, or float in [0, 1], (N, C, H, W).
        labels: int64 (N,).
        mapped: the file that the images are mapped from; None: there is none.
    """

    images: Tensor
    labels: Tensor
    mapped: Mapped | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            shapes = f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            raise DataError(f"images and labels have shapes {shapes}; expected (N, C, H, W) and (N,)")
        kind = str(self.labels.dtype).removeprefix("torch.")
        if self.labels.dtype == torch.bool or self.labels.is_floating_point() or self.labels.is_complex():
            raise DataError(
                f"labels are {kind}; expected whole numbers from 0, one class each: labels.long() makes them"
            )
        if self.labels.dtype != torch.int64:
            object.__setattr__(self, "labels", self.labels.long())

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int | None = None) -> Split:
        """Those from ``start`` up to ``stop``, in the same memory."""
        last = len(self) if stop is None else stop
        mapped = None if self.mapped is None else self.mapped.part(start, last)
        return Split(self.images[start:last], self.labels[start:last], mapped)


@dataclass(frozen=True)
class ImageDataset:
    """A labelled image dataset in memory.

    Attributes:
        name: what it is called in results.
        train: what networks are trained and calibrated on.
        validation: a tenth of the training files that no training sees.
        test: what accuracies are reported on; the validation split itself where there is no other.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        classes: the classes' names, in the order of the labels; none: nobody knows them, and labels mean nothing.
        mirror: whether a mirror image keeps its label.
        note: what a reader of its figures must know, such as that it has no test split of its own.
        framing: how images came to their size, in words; "" where nobody said.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    mirror: bool = False
    note: str = ""
    framing: str = ""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            labels, count = getattr(self, name).labels, len(self.classes)
            low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
            if self.labelled and len(labels) and not 0 <= low <= high < count:
                raise DataError(
                    f"dataset {self.name!r}: {name} has labels from {low} to {high}, and there are {count} classes:"
                    " number them from 0"
                )

    @property
    def labelled(self) -> bool:
        """Whether its labels are known."""
        return bool(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        c, h, w = self.test.images.shape[1:]
        return c, h, w

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the training or test data (all labels, and every 97th image)."""
        return _digest(self.train, self.test)

    def digest(self, split: SplitName) -> str:
        """16 hex digits that change with what trials on ``split`` depend on."""
        return self.fingerprint if split == "test" else _digest(self.train, self.test, self.part(split))

    @property
    def has_own_test(self) -> bool:
        """Whether the test split is another one than the validation split."""
        return self.test is not self.validation

    def part(self, split: SplitName) -> Split:
        """One of the splits by its name."""
        found: Split = getattr(self, split)
        return found

    def normalise(self, images: Tensor) -> Tensor:
        """Return (pixel − mean) / std as a new float32 tensor; ``images`` are uint8 or float in [0, 1]."""
        return normalised(images, self.mean, self.std)

    def inputs(self, split: SplitName, limit: int | None = None) -> tuple[Images, Tensor]:
        """Return the images (N, C, H, W) of a split as inputs and its labels (N,), or its first ``limit``.

        Where there are many, images stay as they are stored, and become inputs batch by batch (see `core.pixels`).
        """
        part = self.part(split)
        images = part.images[:limit]
        source = part.mapped if limit is None and part.mapped is not None else images
        return inputs_of(images, source, self.mean, self.std), part.labels[:limit]

    def pool(self, rows: Tensor) -> Images:
        """Return some of the training images as inputs, likewise."""
        part = self.train
        if 4 * part.images[:1].numel() * len(rows) > LARGE:
            return Pixels(part.mapped or part.images, self.mean, self.std, rows)
        return self.normalise(part.images[rows])


def _digest(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.labels.contiguous().numpy().tobytes())
        digest.update(split.images[::97].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Place:
    """Where files may be, and who hears about a long download.

    Attributes:
        roots: folders named by the user, the first one first; only read.
        cache: the folder that downloads are unpacked into, and that is looked into after ``roots``.
        progress: called with a line of text.
        interpolation: how images are scaled to another size; None: as the dataset does it.
    """

    roots: tuple[Path, ...]
    cache: Path
    progress: Progress
    interpolation: str | None = None


Loader = Callable[[Place, int | None], ImageDataset]
"""(where files may be, image size or None for the dataset's own) -> the dataset."""


def register(name: str) -> Callable[[Loader], Loader]:
    """File a dataset under ``name``."""
    return DATASETS.register(name)


def hold_out(images: Tensor, labels: Tensor, seed: int = 0) -> tuple[Split, Split]:
    """Split training files (N, …) into (train, validation): a fixed random tenth of them is held out."""
    rest, held = held_out_rows(len(labels), seed)
    return Split(images[rest], labels[rest]), Split(images[held], labels[held])


def held_out_rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Which of ``count`` files stay for training, and which are held out, in order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = round(count * HELD_OUT)
    return order[held:].sort().values, order[:held].sort().values


def fitted(images: Tensor, size: int | None, interpolation: str | None = None) -> Tensor:
    """Images (N, C, H, W) at another size: scaled where an interpolation is named, else padded; None: as they are."""
    height, width = images.shape[-2:]
    if interpolation is None or size is None or (height, width) == (size, size):
        return pad_to(images, size)
    from torchvision.transforms import functional as vision

    way = vision.InterpolationMode(interpolation)
    scaled: Tensor = vision.resize(images, [size, size], way, antialias=interpolation != "nearest")
    return scaled if images.dtype == torch.uint8 else scaled.clamp_(0, 1)


def pad_to(images: Tensor, size: int | None) -> Tensor:
    """Put images (N, C, H, W) in the middle of black ones of ``size``; None leaves them alone.

    Raises:
        UsageError: ``size`` is smaller than the images.
    """
    height, width = images.shape[-2:]
    if size is None or (height, width) == (size, size):
        return images
    if size < max(height, width):
        raise UsageError(
            f"size = {size}: the images are {height}x{width}, and can only be padded to a larger size; name an"
            " interpolation to have them scaled"
        )
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(images, (left, size - width - left, top, size - height - top))
