"""``folder:PATH``: the user's own unlabelled images, all that lie in a folder or below it.

Each is made grey or coloured as the network takes it, made just large enough to cover the network's images, cropped to
their size in the middle, and normalised as the dataset is; where that is not known, to mean 0 and variance 1 in every
channel. Of more than 10,000 images so many are drawn from, evenly spread over the sorted names.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.calibration.base import Scale, Shape, Wanted, register
from core.errors import DataError, UsageError
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MOST = 10_000
MODES = {1: "L", 3: "RGB"}


def collect(text: str, shape: Shape) -> Tensor:
    """Decode every image to draw from: uint8 (N, C, H, W)."""
    return _decoded(_paths(text), shape)


@register("folder", takes="PATH", collect=collect)
def folder(wanted: Wanted) -> Tensor:
    """Return ``count`` (or all, if fewer) of the folder's images, in random order."""
    if wanted.collected is not None:
        pixels = wanted.collected[_chosen(len(wanted.collected), wanted)]
    else:
        paths = _paths(wanted.text)
        pixels = _decoded([paths[i] for i in _chosen(len(paths), wanted).tolist()], wanted.shape)
    images = pixels.float() / 255
    return (wanted.scale or _own_scale(images)).apply(images)


def _chosen(known: int, wanted: Wanted) -> Tensor:
    return torch.randperm(known, generator=wanted.generator)[: wanted.count]


def _own_scale(images: Tensor) -> Scale:
    var, mean = torch.var_mean(images, (0, 2, 3), correction=0)
    return Scale(tuple(mean.tolist()), tuple(var.sqrt().clamp_min(1 / 255).tolist()))


def _paths(text: str) -> list[Path]:
    """The images below a folder, sorted by name.

    Raises:
        DataError: there is no such folder, it cannot be looked into, or it holds no image.
    """
    from core.datasets.image_folder import ENDINGS

    root = Path(text).expanduser()
    where = f"calibration 'folder:{text}': {root.absolute()}"
    if not root.is_dir():
        raise DataError(f"{where} is not a folder: name one that holds images, or use another source")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and _is_shown(path, root))
    if not found:
        endings = ", ".join(sorted(ENDINGS))
        raise DataError(f"{where} holds no image ({endings}): put some there, or name another folder")
    return found if len(found) <= MOST else [found[i * len(found) // MOST] for i in range(MOST)]


def _is_shown(path: Path, root: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)


def _decoded(paths: list[Path], shape: Shape) -> Tensor:
    """The images uint8 (n, C, H, W).

    Raises:
        UsageError: the network takes neither grey nor coloured images.
    """
    from core.datasets.image_folder import read_picture

    channels, height, width = shape
    if channels not in MODES:
        raise UsageError(f"calibration 'folder': images have 1 or 3 channels, and the network takes {channels}")
    images = torch.empty(len(paths), *shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata
        for i, path in enumerate(paths):
            images[i] = _covering(read_picture(path, MODES[channels]), height, width)
    return images


def _covering(picture: Any, height: int, width: int) -> Tensor:
    """The middle (C, height, width) of a picture that is made just large enough for it, as uint8."""
    from torchvision.transforms import functional as vision

    scale = max(height / picture.height, width / picture.width)
    resized = [max(height, round(picture.height * scale)), max(width, round(picture.width * scale))]
    pixels: Tensor = vision.pil_to_tensor(vision.center_crop(vision.resize(picture, resized), [height, width]))
    return pixels
