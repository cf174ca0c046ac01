"""``image-folder:PATH``: photographs laid out as ImageNet's, ``PATH/train/CLASS/*.jpg`` and ``PATH/val/CLASS/*.jpg``.

The classes are the folders of ``train``, sorted; where ``train`` holds images and no folder, there are none, and nobody
knows the labels (see `core.evaluators`). ``val`` (or ``test``) is what accuracies are reported on; where both
are there, ``test`` is, and ``val`` is the validation split, which is otherwise a tenth of the training images.
Each image is resized so that its shorter side is 256/224 of ``size`` (224), cropped to the middle ``size`` × ``size``,
and normalised with ImageNet's mean and standard deviation: the usual evaluation of torchvision's weights. Those that
want another one, bicubic or of another shorter side, bring it along (see `core.preprocessing`).

Images are kept decoded, 3·size² bytes each (151 kB at 224): 50,000 take 7.5 GB. More than `IN_MEMORY` bytes are decoded
once, into a file of the cache folder that all processes share (see `core.datasets.decoded`), and memory does not grow
with them. ``image-folder:PATH?train=20&test=10`` takes so many images of each class, evenly spread over their names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from core.datasets.base import ImageDataset, Progress, Split, held_out_rows
from core.datasets.decoded import decoded
from core.errors import DataError, UnknownNameError, UsageError
from core.parts import IMAGE_FOLDER

PREFIX = IMAGE_FOLDER
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZED = 224, 256 / 224
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
LAYOUT = "the layout is PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg (or test instead of val)"
CHUNK = 1024
IN_MEMORY = 2**26
"""Bytes of decoded images, up to which they are kept in memory and no file is written."""


@dataclass(frozen=True)
class Amounts:
    """What the text behind the ``?`` says.

    Attributes:
        train: images per class of this split; None: all.
        val: likewise.
        test: likewise.
        memory: was a limit of GB once, and is not looked at any more.
    """

    train: int | None = None
    val: int | None = None
    test: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Frame:
    """What is seen of a photograph.

    Attributes:
        side: of the square in its middle, in pixels.
        shorter: its shorter side, before that is cut out.
        interpolation: how it is brought there.
    """

    side: int
    shorter: int
    interpolation: str

    @property
    def words(self) -> str:
        """For cards."""
        return f"the shorter side scaled to {self.shorter} ({self.interpolation}), the middle {self.side}x{self.side}"


@dataclass(frozen=True)
class Files:
    """The files of one split.

    Attributes:
        paths: of the images, class by class.
        labels: of each of them.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def taken(self, order: Sequence[int]) -> Files:
        """The same files in another order."""
        return Files(tuple(self.paths[i] for i in order), tuple(self.labels[i] for i in order))


def image_folder(
    name: str,
    size: int | None,
    progress: Progress,
    *,
    cache: Path,
    resize: int | None = None,
    interpolation: str | None = None,
) -> ImageDataset:
    """Load the photographs that ``image-folder:PATH`` names.

    Args:
        name: ``image-folder:PATH`` or ``image-folder:PATH?train=…&val=…&test=…``.
        size: side of the images in pixels; None: 224.
        progress: called with a line of text while images are read.
        cache: folder for what is decoded.
        resize: the shorter side before the middle is cut out; None: 256/224 of ``size``.
        interpolation: how that is done; None: bilinearly.

    Raises:
        UsageError: no path, something unknown behind the ``?``, or less than ``size`` would be left to cut from.
        DataError: a folder is missing or empty, or an image is damaged.
        DiskFullError: there is no room for the decoded images.
    """
    path, _, query = name.removeprefix(PREFIX).partition("?")
    if not path or not name.startswith(PREFIX):
        raise UsageError(f"dataset {name!r}: write image-folder:PATH; {LAYOUT}")
    amounts, root, side = _amounts(name, query), Path(path).expanduser(), size or SIZE
    shorter = resize or round(side * RESIZED)
    if shorter < side:
        raise UsageError(f"resize = {shorter} is below size = {side}: nothing of that size can be cut out")
    frame = Frame(side, shorter, interpolation or "bilinear")
    classes = _classes(_split_folder(root, "train"))
    held = [split for split in ("test", "val") if (root / split).is_dir()]
    if not held:
        raise DataError(f"{root} has neither a folder 'val' nor 'test'; {LAYOUT}")
    found = {split: _files(root / split, classes, getattr(amounts, split)) for split in ("train", *held)}
    total = 3 * side**2 * sum(len(files.paths) for files in found.values())

    def read(split: str) -> Split:
        def tell(done: int) -> None:
            progress(f"{root / split}: {done} of {len(found[split].paths)} images")

        return _read(found[split], frame, cache if total > IN_MEMORY else None, tell)

    if len(held) == 1:  # in the order of its parts, so that each of them is a piece of the file
        rest, apart = (rows.tolist() for rows in held_out_rows(len(found["train"].paths)))
        found["train"] = found["train"].taken([*rest, *apart])
    train = read("train")
    fitting, validation = (train, read("val")) if len(held) == 2 else (train.part(0, len(rest)), train.part(len(rest)))
    test = read(held[0])
    title = PREFIX + root.resolve().name
    alone = "'val' is its test split, and a tenth of 'train' its validation split" if held == ["val"] else ""
    note = f"{title} has no folder 'test': {alone}" if alone else ""
    return ImageDataset(
        title, fitting, validation, test, MEAN, STD, tuple(classes), mirror=True, note=note, framing=frame.words
    )


def _amounts(name: str, query: str) -> Amounts:
    given: dict[str, int] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in Amounts.__dataclass_fields__:
            raise UnknownNameError("option", key, Amounts.__dataclass_fields__, where=f"dataset {name!r}: ")
        if not value.isdecimal() or int(value) < 1:
            raise UsageError(f"dataset {name!r}: {key} = {value!r} must be a whole number from 1")
        given[key] = int(value)
    return Amounts(**given)


def _split_folder(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; {LAYOUT}")
    if not (root / split).is_dir():
        raise DataError(f"{root} has no folder {split!r}; {LAYOUT}")
    return root / split


def _classes(folder: Path) -> list[str]:
    """The class folders of 'train'; none where its images lie there without any."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() for path in inside) or not any(path.suffix.lower() in ENDINGS for path in inside):
        return _folders(folder)
    return []


def _folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise DataError(f"{folder} holds {len(names)} class folders, at least two are needed; {LAYOUT}")
    return names


def _files(folder: Path, classes: list[str], limit: int | None) -> Files:
    """The images of a split, class by class; ``limit`` of each, evenly spread over the sorted names.

    Raises:
        DataError: the class folders are not those of 'train', or one of them holds no image.
    """
    if not classes:
        return _loose(folder, limit)
    unknown = sorted(set(_folders(folder)) - set(classes))
    if unknown:
        raise DataError(
            f"{folder / unknown[0]} is a class that 'train' does not have; both need the same class folders"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise DataError(f"{folder} has no folder {name!r}, which 'train' has; both need the same class folders")
        own = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        if not own:
            raise DataError(f"{folder / name} holds no image ({', '.join(sorted(ENDINGS))}); fill or remove the folder")
        own = _some(own, limit)
        paths += own
        labels += [label] * len(own)
    return Files(tuple(paths), tuple(labels))


def _loose(folder: Path, limit: int | None) -> Files:
    """The images in a folder, by name, whose labels nobody knows.

    Raises:
        DataError: there is none.
    """
    paths = _some(sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file()), limit)
    if not paths:
        raise DataError(
            f"{folder} holds no image, and 'train' holds images without class folders: put images there, or sort both"
        )
    return Files(tuple(paths), (0,) * len(paths))


def _some(paths: list[Path], limit: int | None) -> list[Path]:
    """``limit`` of the paths, evenly spread; None: all."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def _read(files: Files, frame: Frame, cache: Path | None, tell: Callable[[int], None]) -> Split:
    """Images uint8 (N, 3, side, side), in memory or in a file of ``cache``, and labels (N,)."""
    labels = torch.tensor(files.labels)
    if cache is not None:
        mapped = decoded(files.paths, frame.words, frame.side, cache, lambda paths: _decoded(paths, frame), tell)
        return Split(mapped.open(), labels, mapped)
    images = torch.empty(len(files.paths), 3, frame.side, frame.side, dtype=torch.uint8)
    for start in range(0, len(files.paths), CHUNK):
        for offset, image in enumerate(_decoded(files.paths[start : start + CHUNK], frame)):
            images[start + offset] = image
        tell(min(start + CHUNK, len(files.paths)))
    return Split(images, labels)


def _decoded(paths: Sequence[Path], frame: Frame) -> Iterator[Tensor]:
    """The images of ``paths``, decoded by as many threads as there are cores."""
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata
        yield from pool.map(lambda path: _decode(path, frame), paths)


def _decode(path: Path, frame: Frame) -> Tensor:
    from torchvision.transforms import functional as vision

    way = vision.InterpolationMode(frame.interpolation)
    picture = vision.resize(read_picture(path, "RGB"), [frame.shorter], way)
    picture = vision.center_crop(picture, [frame.side, frame.side])
    pixels: Tensor = vision.pil_to_tensor(picture)
    return pixels


def read_picture(path: Path, mode: str) -> Any:
    """A decoded file as Pillow's image in ``mode``: "RGB", or "L" for grey.

    Raises:
        DataError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            return file.convert(mode)
    except Exception as error:  # a damaged file makes the decoder fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read as an image ({reason}): replace or remove it") from None
