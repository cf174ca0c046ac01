"""``digits``: scikit-learn's 1,797 handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998); no download, tiny."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from core.datasets.base import ImageDataset, Place, Split, fitted, register
from core.errors import UsageError

NATIVE, DEFAULT_SIZE = 8, 28
SEED = 0


@register("digits")
def digits(place: Place, size: int | None) -> ImageDataset:
    """Load the digits, scaled to 28×28 (or ``size``); 60/10/30 % for train/validation/test, stratified.

    Raises:
        UsageError: ``size`` is smaller than the digits are.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    size = DEFAULT_SIZE if size is None else size
    if size < NATIVE:
        raise UsageError(f"size = {size}: the digits are {NATIVE}x{NATIVE}, and can only be scaled to a larger size")
    raw = load_digits()
    images = torch.from_numpy(raw.images).float().unsqueeze(1) / 16
    if place.interpolation in (None, "bilinear"):
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    images = fitted(images, size, place.interpolation)
    labels = torch.from_numpy(raw.target).long()
    everything = range(len(labels))
    fitting, test = train_test_split(everything, test_size=0.3, stratify=labels, random_state=SEED)
    train, validation = train_test_split(fitting, test_size=1 / 7, stratify=labels[fitting], random_state=SEED)
    return ImageDataset(
        "digits",
        train=Split(images[train], labels[train]),
        validation=Split(images[validation], labels[validation]),
        test=Split(images[test], labels[test]),
        mean=(0.5,),
        std=(0.5,),
        classes=tuple("0123456789"),
    )
