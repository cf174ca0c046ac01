"""Whether an original network that was trained elsewhere is evaluated as its author meant.

Somebody who says what accuracy to expect is told where it is missed. For anybody else a few hundred test images are
tried with the usual ways from pixels to inputs: a network that is clearly better with another one is doubted, and so
is one that is little better than chance. It costs as much as an evaluation of five times `PROBED` images, once per
network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from core.config import BaselineConfig
from core.datasets import ImageDataset
from core.datasets.image_folder import MEAN, STD
from core.errors import ModelError
from core.measure import accuracy_and_loss
from core.preprocessing import described, numbers

PROBED = 300
"""So many test images are looked at."""
RISE = 3.0
"""So many points of accuracy another way must gain to be named."""
SHORT = 1.0
"""So many points below the expected accuracy are forgiven."""
BATCH = 100
BYTES = 32.0
"""A fraction of a pixel that is larger than this is none: somebody has left it a byte."""


@dataclass(frozen=True)
class Way:
    """A usual way from pixels in [0, 1] to inputs.

    Attributes:
        words: what it is called.
        mean: per channel.
        std: per channel.
    """

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def usual_ways(data: ImageDataset, own: ImageDataset) -> Iterator[Way]:
    """The usual ways that differ from how ``data`` is read; ``own`` is the dataset without anybody's changes."""
    channels = data.shape[0]
    plain = data.test.images
    unscaled = plain.is_floating_point() and len(plain) and (float(plain.max()) > 1 or float(plain.min()) < 0)
    ways = [
        Way("images left as they are" if unscaled else "images in [0, 1]", (0.0,) * channels, (1.0,) * channels),
        Way("images in [0, 255]", (0.0,) * channels, (1 / 255,) * channels),
        Way("images in [-1, 1]", (0.5,) * channels, (0.5,) * channels),
        Way(f"the normalisation of {own.name}", own.mean, own.std),
    ]
    if channels == len(MEAN):
        ways.append(Way("the normalisation of ImageNet", MEAN, STD))
    if unscaled and float(plain.max()) > BYTES:
        ways += [
            Way("images divided by 255", tuple(255 * m for m in mean), tuple(255 * s for s in std))
            for mean, std in ((data.mean, data.std), (own.mean, own.std), ((0.0,) * channels, (1.0,) * channels))
        ]
    seen = {(data.mean, data.std)}
    for way in ways:
        if (way.mean, way.std) not in seen:
            seen.add((way.mean, way.std))
            yield way


def little(data: ImageDataset) -> float:
    """What is little better than chance, percent: twice of it, but no more than half of the way to all right."""
    chance = 100 / len(data.classes)
    return min(2 * chance, (100 + chance) / 2)


def better_way(model: nn.Module, data: ImageDataset, own: ImageDataset, device: str) -> str:
    """The way that ``model`` is clearly better with, in a sentence; "" where there is none."""
    chosen = torch.linspace(0, len(data.test) - 1, min(PROBED, len(data.test))).long()
    images, labels = data.test.images[chosen], data.test.labels[chosen]

    def reached(mean: Sequence[float], std: Sequence[float]) -> float:
        inputs = replace(data, mean=tuple(mean), std=tuple(std)).normalise(images)
        return accuracy_and_loss(model, inputs, labels, BATCH, device)[0]

    given = reached(data.mean, data.std)
    if given > 100 - RISE:
        return ""
    best, way = max(((reached(way.mean, way.std), way) for way in usual_ways(data, own)), key=lambda found: found[0])
    if best <= given + RISE or best < little(data):
        return ""
    return (
        f"{given:.1f} % as given (mean {numbers(data.mean)}, std {numbers(data.std)}), {best:.1f} % with {way.words},"
        f" on {len(labels)} test images; did you mean mean = {numbers(way.mean)}, std = {numbers(way.std)}?"
    )


def doubts_about(model: nn.Module, accuracy: float, data: ImageDataset, own: ImageDataset, device: str) -> list[str]:
    """What speaks against it that ``model``, of this accuracy on the test split, is evaluated as its author meant."""
    if better := better_way(model, data, own, device):
        return [better]
    if accuracy < little(data):
        chance = f"{100 / len(data.classes):.3g} %"
        return [
            f"{accuracy:.2f} % on {len(data.test)} test images is little better than chance ({chance}): are the"
            f" checkpoint, the preprocessing ({described(data)}) and the order of the classes those of its training?"
        ]
    return []


def require_expected(
    config: BaselineConfig, model: nn.Module, accuracy: float, data: ImageDataset, own: ImageDataset, device: str
) -> None:
    """Compare a network with what was expected of it.

    Raises:
        ModelError: it is more than a point worse.
    """
    if config.expected_accuracy is None or accuracy >= config.expected_accuracy - SHORT:
        return
    hint = better_way(model, data, own, device) or (
        "bring mean, std, size and interpolation in line with its training, name its own checkpoint, or expect less"
    )
    raise ModelError(
        f"{config.model} reaches {accuracy:.2f} % on the test split of {data.name} ({len(data.test)} images) with"
        f" {described(data)}, and expected_accuracy is {config.expected_accuracy:g}: {hint}"
    )
