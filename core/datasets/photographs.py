"""``photographs``: crops of whatever photographs a machine has, without labels; for scoring by agreement.

They are looked for in the folders of the user (``SWEEP_DATA_DIR``), in a subfolder ``photographs`` of them first, then
where Debian's packages of backgrounds put them (``gnome-backgrounds``, ``mate-backgrounds``). Half of them
calibrate, a quarter validates and a quarter tests, so that no photograph is in two splits; each is cropped at random,
always in the same way: a part of a fifth of its area or more, scaled to a square.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.datasets.base import ImageDataset, Place, Split, register
from core.datasets.image_folder import ENDINGS, MEAN, STD, read_picture
from core.errors import DataError

BACKGROUNDS = Path("/usr/share/backgrounds")
FEWEST = 8
CROPS = {"train": 256, "validation": 256, "test": 512}
SIDE, LEAST, LONGEST = 224, 0.2, 1600


@register("photographs")
def photographs(place: Place, size: int | None) -> ImageDataset:
    """Load crops of the photographs that are found.

    Raises:
        DataError: there are fewer than `FEWEST`, or one is damaged.
    """
    paths = find(place)
    random.Random(0).shuffle(paths)  # noqa: S311  reproducible, no secret
    half, rest = len(paths) // 2, len(paths) // 4
    parts = {"train": paths[:half], "validation": paths[half:-rest], "test": paths[-rest:]}
    side, splits = size or SIDE, {}
    for seed, (name, own) in enumerate(parts.items()):
        place.progress(f"photographs: {CROPS[name]} crops of {len(own)} for {name}")
        images = crops(own, CROPS[name], side, seed)
        splits[name] = Split(images, torch.zeros(len(images), dtype=torch.long))
    framing = f"a random part of {100 * LEAST:g} % or more, scaled to {side}x{side}"
    return ImageDataset(
        "photographs",
        splits["train"],
        splits["validation"],
        splits["test"],
        MEAN,
        STD,
        (),
        mirror=True,
        framing=framing,
    )


def find(place: Place) -> list[Path]:
    """The photographs in the first folder that has enough of them, by name.

    Raises:
        DataError: none has.
    """
    folders = [folder for root in place.roots for folder in (root / "photographs", root)] + [BACKGROUNDS]
    for folder in folders:
        if folder.is_dir():
            found = [p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file() and not p.is_symlink()]
            if len(found) >= FEWEST:
                return sorted(found)
    raise DataError(
        f"dataset 'photographs': no folder has {FEWEST} photographs ({', '.join(map(str, folders))}); name one with"
        " SWEEP_DATA_DIR, or install Debian's gnome-backgrounds and mate-backgrounds"
    )


def crops(paths: Sequence[Path], count: int, side: int, seed: int) -> Tensor:
    """Random crops uint8 (count, 3, side, side), as many of each photograph; the global random state is left alone."""
    from torchvision.transforms import v2

    cut = v2.Compose([v2.RandomResizedCrop(side, scale=(LEAST, 1.0), antialias=True), v2.PILToTensor()])
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for number, path in enumerate(paths):
            whole = read_picture(path, "RGB")
            whole.thumbnail((LONGEST, LONGEST))
            found += [cut(whole) for _ in range(number, count, len(paths))]
    return torch.stack(found)
