"""`calibration_images`: the images of a source by its name; `collect`: what a source reads before a sweep begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.calibration.base import Scale, Shape, Wanted, draw, find_source
from core.errors import UsageError
from core.lazy import torch
from core.plain import plain_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from core.pixels import Images


@plain_torch()
def calibration_images(
    source: str,
    *,
    shape: Sequence[int] | None = None,
    count: int = 256,
    seed: int = 0,
    model: nn.Module | None = None,
    images: Images | None = None,
    scale: Scale | None = None,
    collected: Tensor | None = None,
) -> Tensor:
    """Unlabelled images (n, C, H, W) as a network takes them; n is ``count``, or less where there are no more.

    Args:
        source: ``noise``, ``synthetic``, ``train-subset``, ``folder:PATH``, or another registered source.
        shape: (C, H, W) of one image; None: that of ``images``.
        count: how many images.
        seed: of every random draw; the same seed gives the same images.
        model: the network that ``synthetic`` makes them for; it is not changed.
        images: normalised training images (N, C, H, W) that ``train-subset`` draws from.
        scale: how the network's images are normalised: ``Scale(mean, std)`` of pixels in [0, 1].
        collected: what `collect` gave for ``source``, so that no file is read.

    Raises:
        UnknownNameError: no such source; the nearest names are given.
        UsageError: something that the source needs is missing, or a value is out of bounds.
        DataError: files are missing or damaged; the message names them.
        ModelError: the network cannot be run on such images, or gives values that are not finite.
    """
    find_source(source)
    wanted = Wanted(
        shape=_shape(shape, images),
        count=count,
        generator=torch.Generator().manual_seed(seed),
        pool=images,
        model=model,
        scale=scale,
        collected=collected,
    )
    if count < 1:
        raise UsageError(f"count = {count}: ask for at least one image, better 256")
    if scale is not None and not {len(scale.mean), len(scale.std)} <= {1, wanted.shape[0]}:
        raise UsageError(f"scale has {len(scale.mean)} means and {len(scale.std)} stds for {wanted.shape[0]} channels")
    return draw(source, wanted)


def collect(source: str, shape: Shape) -> Tensor | None:
    """Everything that ``source`` draws from, where it looks at files of this machine; None where it does not."""
    found, text = find_source(source)
    return None if found.collect is None else found.collect(text, shape)


def _shape(shape: Sequence[int] | None, images: Images | None) -> Shape:
    if shape is None and images is None:
        raise UsageError("say the shape of an image: shape=(C, H, W)")
    found = tuple(shape if shape is not None else () if images is None else images.shape[1:])
    if len(found) != 3 or not all(isinstance(side, int) and side >= 1 for side in found):
        raise UsageError(f"shape = {found}: give (C, H, W), three whole numbers from 1")
    return found[0], found[1], found[2]
