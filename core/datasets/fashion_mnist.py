"""``fashion-mnist``: 70,000 grey 28×28 images of clothes in ten classes (Xiao, Rasul & Vollgraf 2017).

Looked for in the folders of the user, then where Debian's package ``dataset-fashion-mnist`` puts it, then in the
cache; else downloaded by torchvision, else taken from the Debian package without installing it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.datasets.base import ImageDataset, Place, Split, fitted, hold_out, register
from core.datasets.download import UnavailableError, debian_package, quietly, staging
from core.datasets.idx import read_idx
from core.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
UNPACKED = DEBIAN.relative_to("/")
PACKAGE = "dataset-fashion-mnist"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@register("fashion-mnist")
def fashion_mnist(place: Place, size: int | None) -> ImageDataset:
    """Load FashionMNIST; pixels enter a network as (x/255 − 0.5) / 0.5.

    Raises:
        DataError: a label is larger than there are classes.
    """
    paths = find(place) or fetch(place)
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in paths)
    for labels, path in ((train_labels, paths[1]), (test_labels, paths[3])):
        if int(labels.max()) >= len(CLASSES):
            raise DataError(f"{path} has a label {int(labels.max())}: this is not FashionMNIST, or it is damaged")
    train, validation = hold_out(fitted(train_images.unsqueeze(1), size, place.interpolation), train_labels.long())
    test = Split(fitted(test_images.unsqueeze(1), size, place.interpolation), test_labels.long())
    return ImageDataset("fashion-mnist", train, validation, test, (0.5,), (0.5,), CLASSES, mirror=True)


def find(place: Place) -> list[Path] | None:
    """Return the four files (plain or gzipped) from the first folder that has them all, or None."""
    for folder in _folders(place):
        found = [next((p for p in (folder / f, folder / f"{f}.gz") if p.is_file()), None) for f in FILES]
        paths = [path for path in found if path is not None]
        if len(paths) == len(FILES):
            return paths
    return None


def fetch(place: Place) -> list[Path]:
    """Download the four files into the cache.

    Raises:
        DataError: neither source could be reached; the message says where to put the files.
    """
    failures = []
    for source, getter in (("torchvision", _from_torchvision), ("Debian package", _from_debian)):
        place.progress(f"fashion-mnist: downloading ({source})")
        try:
            with staging(place.cache) as folder:
                _move(getter(folder), place.cache / "fashion-mnist")
        except UnavailableError as error:
            failures.append(f"{source}: {error}")
            continue
        if paths := find(place):
            return paths
        failures.append(f"{source}: files are missing in it")
    raise DataError(
        f"fashion-mnist is not on this machine and cannot be downloaded ({'; '.join(failures)}): put the four files "
        f"{FILES[0]}.gz … into a folder and set SWEEP_DATA_DIR to it"
    )


def _folders(place: Place) -> Iterator[Path]:
    for root in (*place.roots, None, place.cache):
        if root is None:
            yield DEBIAN
        else:
            yield from (root, root / "fashion-mnist", root / "FashionMNIST" / "raw")


def _from_torchvision(folder: Path) -> Path:
    import torchvision

    quietly(lambda: torchvision.datasets.FashionMNIST(folder, download=True))
    return folder / "FashionMNIST" / "raw"


def _from_debian(folder: Path) -> Path:
    debian_package(PACKAGE, folder)
    return folder / UNPACKED


def _move(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*-ubyte.gz"):
        path.replace(target / path.name)
