"""Images that are kept as they are stored, a byte per value, and become inputs batch by batch.

Inputs are four times as large as bytes: 50,000 photographs of 224x224 pixels are 7.5 GB in a file, which any number of
workers map into their memory and share, and would be 30 GB of float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from core.errors import DataError

LARGE = 2**29
"""Bytes of float32 from which on images stay as they are stored."""


@dataclass(frozen=True)
class Mapped:
    """Images uint8 (N, C, H, W) in a file, one after the other and nothing else.

    Attributes:
        path: of the file.
        shape: (N, C, H, W).
        first: number of the first of them in the file.
    """

    path: Path
    shape: tuple[int, int, int, int]
    first: int = 0

    def open(self) -> Tensor:
        """Map them into memory, read-only; what is read stays in the system's cache, for all processes.

        Raises:
            DataError: the file is not there, or too short.
        """
        try:
            each = int(np.prod(self.shape[1:]))
            array = np.memmap(self.path, np.uint8, "r", self.first * each, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: the decoded images cannot be read ({error}); start again, which decodes them anew"
            ) from None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)

    def part(self, start: int, stop: int) -> Mapped:
        """Those from ``start`` up to ``stop``."""
        return Mapped(self.path, (stop - start, *self.shape[1:]), self.first + start)


@dataclass(frozen=True)
class Pixels:
    """Images that become inputs when they are asked for: ``pixels[a:b]`` and ``pixels[index]`` are tensors.

    Attributes:
        source: uint8, or float in [0, 1], (M, C, H, W).
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        rows: (N,) which of them, in which order; None: all.
    """

    source: Tensor | Mapped
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor | None = None

    @cached_property
    def stored(self) -> Tensor:
        """The source in memory."""
        return self.source.open() if isinstance(self.source, Mapped) else self.source

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self.stored.shape[1:]))

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """Inputs float32 (n, C, H, W), in memory of their own."""
        return normalised(self.stored[which if self.rows is None else self.rows[which]], self.mean, self.std)

    def held(self, which: slice) -> Tensor:
        """Some as they are stored, (n, C, H, W): how they travel to a device."""
        return self.stored[which if self.rows is None else self.rows[which]]

    def ready(self, held: Tensor) -> Tensor:
        """Inputs float32 (n, C, H, W) of what is `held`, where that is."""
        return normalised(held, self.mean, self.std)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pixels, (self.source, self.mean, self.std, self.rows)  # not what has been mapped

    def reordered(self, order: Tensor) -> Pixels:
        """The same images in another order, or some of them."""
        return replace(self, rows=order if self.rows is None else self.rows[order])


Images: TypeAlias = Tensor | Pixels
"""Inputs (N, C, H, W): as they are, or as stored images that become some."""


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixel − mean) / std as a new float32 tensor; ``images`` are uint8, or float in [0, 1], (N, C, H, W)."""
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)
    middle = torch.tensor(mean, device=pixels.device).view(1, -1, 1, 1)
    spread = torch.tensor(std, device=pixels.device).view(1, -1, 1, 1)
    return pixels.sub_(middle).div_(spread)


def inputs_of(images: Tensor, source: Tensor | Mapped, mean: tuple[float, ...], std: tuple[float, ...]) -> Images:
    """``images`` as inputs: at once where there are few, and batch by batch from ``source`` where they are `LARGE`."""
    return Pixels(source, mean, std) if 4 * images.numel() > LARGE else normalised(images, mean, std)


def in_order(images: Images, order: Tensor) -> Images:
    """The images in another order."""
    return images.reordered(order) if isinstance(images, Pixels) else images[order]
