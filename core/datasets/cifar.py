"""``cifar10`` and ``cifar100``: 60,000 colour 32×32 images in 10 or 100 classes (Krizhevsky 2009).

Both are normalised with mean (0.4914, 0.4822, 0.4465) and std (0.2023, 0.1994, 0.2010): the constants of the
published evaluation of neuron merging (github.com/friendshipkim/neuron-merging, main.py), for CIFAR-100 too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.datasets.base import ImageDataset, Place, Split, fitted, hold_out, register
from core.datasets.download import UnavailableError, quietly, staging
from core.errors import DataError

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


@register("cifar10")
def cifar10(place: Place, size: int | None) -> ImageDataset:
    """Load CIFAR-10."""
    return _load("cifar10", "CIFAR10", place, size)


@register("cifar100")
def cifar100(place: Place, size: int | None) -> ImageDataset:
    """Load CIFAR-100 (fine labels)."""
    return _load("cifar100", "CIFAR100", place, size)


def _load(name: str, kind: str, place: Place, size: int | None) -> ImageDataset:
    import torchvision

    reader = getattr(torchvision.datasets, kind)
    root = _find(reader, place) or _fetch(name, reader, place)
    try:  # torchvision checks each file's checksum before it unpickles it
        parts = [reader(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        folder = root / reader.base_folder
        raise DataError(
            f"{folder} is incomplete or damaged ({error}): delete it, so that it is fetched again"
        ) from None
    train, validation = hold_out(*_tensors(parts[0], size, place))
    test = Split(*_tensors(parts[1], size, place))
    return ImageDataset(name, train, validation, test, MEAN, STD, tuple(parts[0].classes), mirror=True)


def _tensors(part: Any, size: int | None, place: Place) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return fitted(images, size, place.interpolation), torch.tensor(part.targets)


def _find(reader: Any, place: Place) -> Path | None:
    roots = (*place.roots, place.cache)
    return next((root for root in roots if (root / reader.base_folder).is_dir()), None)


def _fetch(name: str, reader: Any, place: Place) -> Path:
    """Unpack the archive: one that the user put there, or a downloaded one.

    Raises:
        DataError: it is neither on this machine nor can it be downloaded.
    """
    place.progress(f"{name}: downloading (170 MB)")
    given = next((root for root in place.roots if (root / reader.filename).is_file()), None)
    try:
        with staging(place.cache) as folder:
            if given is not None:
                (folder / reader.filename).symlink_to((given / reader.filename).resolve())
            quietly(lambda: reader(folder, download=True))
            (folder / reader.base_folder).replace(place.cache / reader.base_folder)
    except UnavailableError as error:
        raise DataError(
            f"{name} is not on this machine and cannot be downloaded ({error}): put {reader.filename} into a folder "
            f"and set SWEEP_DATA_DIR to it"
        ) from None
    return place.cache
