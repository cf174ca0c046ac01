"""`load_dataset`: a registered name, a folder of photographs, or the user's own function."""

from __future__ import annotations

import os
from pathlib import Path

from core.datasets import image_folder
from core.datasets.base import ImageDataset, Loader, Place, Progress
from core.errors import DataError, NeuronMergingError, UsageError
from core.parts import DATASETS
from core.plugins import import_callable
from core.tasks import Task

VARIABLE = "SWEEP_DATA_DIR"
CACHE = Path("data")
LARGEST = 1024


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    cache_dir: str | Path = CACHE,
    progress: Progress | None = None,
) -> ImageDataset:
    """Load a dataset of images into memory; its files are downloaded if they are nowhere to be found.

    Args:
        name: a registered dataset; ``image-folder:PATH``, photographs in the layout of ImageNet (see
            `core.datasets.image_folder`); or ``package.module:function`` of the user, called with nothing: its module
            is imported and run, and it returns an `ImageDataset`.
        data_dir: folder with the files; the environment variable ``SWEEP_DATA_DIR`` names another one.
        size: side of the images in pixels: smaller ones are padded with black (the digits and photographs are scaled);
            None keeps them (photographs: 224).
        resize: of photographs, the shorter side before the middle is cut out; None: 256/224 of ``size``.
        interpolation: nearest, bilinear or bicubic; where it is named, small images are scaled and not padded.
        cache_dir: folder that downloads are unpacked into.
        progress: called with a line of text when something takes long.

    Raises:
        UnknownNameError: no such dataset; the nearest names are given.
        UsageError: a named folder does not exist, ``size`` is too small, or the images are scaled by somebody else.
        DataError: files are missing and cannot be downloaded, or are damaged; the message names them.
    """
    found = load_data(
        name, data_dir, size=size, resize=resize, interpolation=interpolation, cache_dir=cache_dir, progress=progress
    )
    if isinstance(found, Task):
        raise UsageError(f"dataset {name!r} is a Task, and images with labels are wanted here: return an ImageDataset")
    return found


def load_data(
    name: str,
    data_dir: str | Path | None = None,
    *,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    cache_dir: str | Path = CACHE,
    progress: Progress | None = None,
) -> ImageDataset | Task:
    """Load a dataset of images, or a `core.tasks.Task` of the user's; arguments as of `load_dataset`.

    Raises:
        UnknownNameError: as `load_dataset`.
        UsageError: as `load_dataset`.
        DataError: as `load_dataset`.
    """
    if size is not None and not 1 <= size <= LARGEST:
        raise UsageError(f"size = {size}: must be between 1 and {LARGEST} pixels")
    if name == "image-folder" or name.startswith(image_folder.PREFIX):
        return image_folder.image_folder(
            name, size, progress or _silent, cache=Path(cache_dir), resize=resize, interpolation=interpolation
        )
    if resize is not None:
        raise UsageError(
            f"resize = {resize}: only photographs (image-folder:PATH) are cut out of larger ones; leave it out"
        )
    if ":" in name:
        return _user_dataset(name, size, interpolation)
    loader: Loader = DATASETS.get(name)
    place = Place(_roots(data_dir), Path(cache_dir), progress or _silent, interpolation)
    return loader(place, size)


def _roots(data_dir: str | Path | None) -> tuple[Path, ...]:
    named = {"data_dir": data_dir, VARIABLE: os.environ.get(VARIABLE)}
    roots = []
    for source, folder in named.items():
        if not folder:
            continue
        if not Path(folder).expanduser().is_dir():
            raise UsageError(f"{source} = {str(folder)!r} is not a folder: name the folder that holds the datasets")
        roots.append(Path(folder).expanduser())
    return tuple(roots)


def _user_dataset(name: str, size: int | None, interpolation: str | None) -> ImageDataset | Task:
    for what, given in (("size", size), ("interpolation", interpolation)):
        if given is not None:
            raise UsageError(f"{what} = {given}: dataset {name!r} decides on its own size; leave it out")
    function = import_callable(name, "dataset")
    try:
        dataset = function()
    except NeuronMergingError as error:
        raise DataError(f"dataset {name!r}: {error}") from error
    except Exception as error:
        raise DataError(f"dataset {name!r}: the function failed: {type(error).__name__}: {error}") from error
    if isinstance(dataset, Task):
        return dataset.named(name)
    if not isinstance(dataset, ImageDataset):
        kind = type(dataset).__name__
        raise DataError(f"dataset {name!r}: the function returned a {kind}, not an ImageDataset and no Task")
    return dataset


def _silent(_: str) -> None:
    return None
