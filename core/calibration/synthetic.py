"""``synthetic``: images made from the network alone, so that its batch norms see what they saw in training.

A batch norm remembers mean μ and variance σ² of every channel that it read in training. Images x are found from noise
by Adam, so that the statistics m, v of a batch agree with them in all norms at once (after DeepInversion: Yin et al.,
CVPR 2020, and ZeroQ: Cai et al., CVPR 2020):

    L(x) = Σ_norms d(x, μ, σ²)  +  d(x, 0, 1) of the images themselves  +  a · [ mean_i H(p_i) − H(mean_i p_i) ]
    d(x, μ, σ²) = mean_c [ (m − μ)² / σ² + (log v/σ²)² ]

with p_i the softmax of image i: each image is one class's (low entropy H), and the classes are balanced. The images'
own term counts where the data are normalised to mean 0 and variance 1. Every step sees the batch shifted by a few
pixels and, half the time, mirrored, so that the statistics hold for such images too. Images stay within what pixels
can be; where it is not known how they are normalised, the usual scale is taken whose noise the norms find least
strange. They are found in batches, each from noise of its own, so that what one start does not come upon another may.

Where Adam looks decides more than how long: an image is a sum of grids of noise from coarse to fine, cut off at black
and white, and Adam moves the grids, so that images change as a whole. From white noise, pixel by pixel, the statistics
are met by patterns that no data have.

Slow: `STEPS` times forward and backward over every image; of a large network at 224×224 that is minutes on a GPU and
hours on one core. Fails on networks without batch norm, and tells less where few norms are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core.calibration.base import Scale, Shape, Wanted, register
from core.errors import ModelError, UsageError, first_line
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

STEPS, BATCH, LR = 160, 64, 0.15
CONFIDENCE = 0.02
"""a, the weight of the label term; with 1 it decides instead of the statistics."""
FLOOR = 0.01
"""Of a norm's mean variance: below it, a channel's variance counts as this, so that a dead channel does not decide."""
PIXELS = 64 * 64
"""A batch of larger images than this has fewer of them, as long as it has `FEWEST`."""
FEWEST = 8
GRIDS, BRIGHTNESS, CONTRAST = (3, 6, 12, 24), 0.3, 0.7
"""Sides of the grids that an image is the sum of, and its mean and standard deviation before it is cut off."""
SHIFT = 1 / 14
"""Largest shift, as a share of the shorter side."""
USUAL = (
    Scale((0.13,), (0.31,)),  # of digits
    Scale((0.29,), (0.35,)),  # of clothes
    Scale((0.47,), (0.25,)),  # of photographs
    Scale((0.5,), (0.5,)),
    Scale((0.0,), (1.0,)),
)
INSTEAD = "use noise or folder:PATH"


@register("synthetic")
def synthetic(wanted: Wanted) -> Tensor:
    """Return (count, C, H, W) that give the network's batch norms the statistics they remember.

    Raises:
        UsageError: there is no network, or it has no batch norm with running statistics.
    """
    if wanted.model is None:
        raise UsageError("calibration 'synthetic' makes images from the network: pass model=…")
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(wanted.model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        norms = [module for module in model.modules() if _remembers(module)]
        if not norms:
            raise UsageError(
                "calibration 'synthetic' matches the running statistics of batch norms, and this network has none:"
                f" {INSTEAD}"
            )
        scale = wanted.scale or _likeliest(model, norms, wanted)
        return torch.cat([_batch(model, norms, size, scale, wanted) for size in _sizes(wanted.count, wanted.shape)])


def _remembers(module: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


def _sizes(count: int, shape: Shape) -> list[int]:
    """As few batches as there must be, of about the same size."""
    most = max(FEWEST, BATCH * PIXELS // max(PIXELS, shape[1] * shape[2]))
    batches = -(-count // most)
    return [count // batches + (i < count % batches) for i in range(batches)]


def _likeliest(model: nn.Module, norms: list[Any], wanted: Wanted) -> Scale:
    """The usual scale with which noise is least strange to the norms."""
    noise = _Grids(FEWEST, wanted).pixels()
    with torch.no_grad():
        strange = [_loss(model, norms, scale.apply(noise).to(norms[0].running_mean), False) for scale in USUAL]
    return USUAL[int(torch.stack(strange).nan_to_num(torch.inf).argmin())]


def _batch(model: nn.Module, norms: list[Any], count: int, scale: Scale, wanted: Wanted) -> Tensor:
    """Images (count, C, H, W) from one start.

    Raises:
        ModelError: a value is not finite.
    """
    like, measured = norms[0].running_mean, _is_measured(scale)
    grids = _Grids(count, wanted)
    adam = torch.optim.Adam(grids.values, lr=LR, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for _ in range(STEPS):
        x = scale.apply(grids.pixels()).to(like)
        loss = _loss(model, norms, _moved(x, wanted.generator), measured)
        gradients = torch.autograd.grad(loss, grids.values)
        if not all(bool(value.isfinite().all()) for value in (loss, *gradients)):
            raise ModelError(
                "calibration 'synthetic': the network gives NaN or infinite values on images that match its batch"
                f" norms: look at its weights and running statistics, or {INSTEAD}"
            )
        for grid, gradient in zip(grids.values, gradients, strict=True):
            grid.grad = gradient
        adam.step()
        schedule.step()
    return scale.apply(grids.pixels().detach())


def _is_measured(scale: Scale) -> bool:
    """Whether they can be the data's own: pixels in [0, 1] of mean m have a variance below m·(1 − m)."""
    return all(s * s < 0.9 * m * (1 - m) for m, s in zip(scale.mean, scale.std, strict=True))


class _Grids:
    """Images as sums of grids from coarse to fine, the finer the fainter; the finest, of every pixel, begins as zero.

    Args:
        count: how many images.
        wanted: their shape, and the generator of the noise that they begin as.
    """

    def __init__(self, count: int, wanted: Wanted) -> None:
        channels, *self._size = wanted.shape
        sides = [[min(side, most) for most in self._size] for side in GRIDS]
        noise = [torch.randn(count, channels, *side, generator=wanted.generator) for side in sides]
        self.values = [grid.requires_grad_() for grid in (*noise, torch.zeros(count, *wanted.shape))]
        self._deviation = self._sum().detach().square().mean().sqrt().clamp_min(1e-6)

    def pixels(self) -> Tensor:
        """The images (count, C, H, W), cut off at 0 and 1."""
        return (BRIGHTNESS + CONTRAST * self._sum() / self._deviation).clamp(0, 1)

    def _sum(self) -> Tensor:
        scaled = (torch.nn.functional.interpolate(grid, size=self._size, mode="bilinear") for grid in self.values)
        return torch.stack([image / 2**fineness for fineness, image in enumerate(scaled)]).sum(0)


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """The batch shifted by up to `SHIFT` of its side, its edge repeated, and half the time mirrored."""
    height, width = x.shape[-2:]
    reach = int(min(height, width) * SHIFT)
    top, left, mirrored = (int(torch.randint(n, (), generator=generator)) for n in (2 * reach + 1, 2 * reach + 1, 2))
    if reach:
        x = torch.nn.functional.pad(x, (reach,) * 4, mode="replicate")[..., top : top + height, left : left + width]
    return x.flip(-1) if mirrored else x


def _loss(model: nn.Module, norms: list[Any], x: Tensor, measured: bool) -> Tensor:
    """L of a batch; the label term only where the output is a row of logits per image.

    Raises:
        ModelError: the network does not take such images.
        UsageError: no norm has run.
    """
    with _watched(norms) as seen:
        try:
            output = model(x)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            shape, reason = tuple(x.shape[1:]), first_line(error)
            raise ModelError(
                f"calibration 'synthetic': the network does not take images {shape} ({reason}): name their shape"
            ) from None
    if not seen:
        raise UsageError(f"calibration 'synthetic': none of this network's batch norms runs: {INSTEAD}")
    loss = torch.stack(seen).sum()
    if measured:
        loss = loss + _apart(x, x.new_zeros(x.shape[1]), x.new_ones(x.shape[1]))
    if isinstance(output, torch.Tensor) and output.ndim == 2 and output.shape[1] > 1:
        log_p = output.log_softmax(1)
        p, share = log_p.exp(), log_p.exp().mean(0)
        unsure, balanced = -(p * log_p).sum(1).mean(), -(share * share.clamp_min(1e-9).log()).sum()
        loss = loss + CONFIDENCE * (unsure - balanced)
    return loss


@contextmanager
def _watched(norms: list[Any]) -> Iterator[list[Tensor]]:
    """A list that gets d of what every norm reads when it runs."""
    seen: list[Tensor] = []

    def look(norm: Any, x: tuple[Tensor, ...]) -> None:
        seen.append(_apart(x[0], norm.running_mean, norm.running_var, norm.eps))

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _apart(x: Tensor, mean: Tensor, var: Tensor, eps: float = 0.0) -> Tensor:
    """d(x, μ, σ²) of x (n, c, …)."""
    away = x.movedim(1, -1).flatten(0, -2) - mean
    shift, second = away.mean(0), away.square().mean(0)
    floor = FLOOR * var.mean() + eps
    known, found = var + floor, (second - shift.square()).clamp_min(0) + floor
    return (shift.square() / known + (found / known).log().square()).mean()
