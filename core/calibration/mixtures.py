"""More to see in few calibration images: mirror images, and mixtures of pairs (Zhang et al., mixup, ICLR 2018).

No label is needed: the original network says what it makes of each of them, and that is all that is fitted to. With
256 images of FashionMNIST and four copies, obs + least-squares + budget loses on average of two draws 3.4 points
instead of 4.4 on a dense network at 26 % of its parameters and 12.2 for 15.3 at 9 %, 5.0 for 6.6 on a VGG-like one at
4 %, 4.4 for 5.2 on an inverted-residual one at 14 %; on a residual one nothing changes (docs/methods.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

AUTO = 4
"""Copies where it is left to us."""
ENOUGH = 1024
"""So many images need no copies."""
NUMBERS = 4_000_000
"""Numbers in images and copies, at most, where it is left to us."""
JUDGED = 4
"""The last of so many equal parts of the images only mixes with itself, so that it can judge what the others fit."""


def copies_for(images: Tensor, copies: int | Literal["auto"]) -> int:
    """How often images (N, …) are seen; where it is left to us `AUTO` times, if they are few and small."""
    if copies != "auto":
        return copies
    few = len(images) < ENOUGH and images.numel() * AUTO <= NUMBERS and images.is_floating_point()
    return AUTO if few else 1


def extended(images: Tensor, copies: int, *, mirror: bool = True, seed: int = 0) -> Tensor:
    """Images and what can be made of them, (copies · N, …).

    Args:
        images: (N, …), normalised.
        copies: 1: the images alone; the second copy is mirrored, if that is allowed and they are (N, C, H, W); all
            others are mixtures (1 − l)·x₁ + l·x₂ with l ~ U(0, ½).
        mirror: whether mirror images are of use.
        seed: of the mixtures.
    """
    if copies == 1:
        return images
    generator = torch.Generator().manual_seed(seed)
    apart = len(images) // JUDGED
    parts = [images[: len(images) - apart], images[len(images) - apart :]]
    return torch.cat([_copied(part, copies, mirror and images.dim() == 4, generator) for part in parts if len(part)])


def _copied(images: Tensor, copies: int, mirror: bool, generator: torch.Generator) -> Tensor:
    pool = torch.cat([images, images.flip(-1)]) if mirror else images
    found = [images, images.flip(-1)] if mirror else [images]
    while len(found) < copies:
        one, other = torch.randint(len(pool), (2, len(images)), generator=generator).to(images.device)
        share = (torch.rand(len(images), *[1] * (images.dim() - 1), generator=generator) * 0.5).to(images)
        found.append((1 - share) * pool[one] + share * pool[other])
    return torch.cat(found)
