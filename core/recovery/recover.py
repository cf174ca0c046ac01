"""recover(): a few hundred steps of Adam on the calibration images that a network was compressed with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from core.errors import TrialError, UsageError
from core.lazy import torch
from core.outputs import are_logits, real_pairs
from core.plain import plain_torch
from core.recovery.base import RECOVERIES, Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 64
HELD_OUT = 8
"""One of so many images is not learned from, and decides whether the network has become better at all."""
POINTS = 50
"""So many points of the loss are kept at most."""


@dataclass(frozen=True)
class Recovered:
    """A network after its recovery.

    Attributes:
        model: the new network, in the training mode that the given one was in.
        curve: (steps done, mean loss since the last point), over the images learned from.
        before: loss on images that were not learned from, before.
        after: likewise, after.
        note: what was not done, in words.
    """

    model: nn.Module
    curve: tuple[tuple[int, float], ...]
    before: float
    after: float
    note: str = ""


def recover(
    model: nn.Module,
    original: nn.Module,
    images: Tensor,
    method: str = "distill",
    steps: int = 400,
    seed: int = 0,
    *,
    labels: Tensor | None = None,
    mirror: bool = True,
    logits: bool = True,
) -> nn.Module:
    """Train a compressed network for some steps and return the new one; arguments as in `recovered`."""
    return recovered(model, original, images, method, steps, seed, labels=labels, mirror=mirror, logits=logits).model


@plain_torch()
def recovered(
    model: nn.Module,
    original: nn.Module,
    images: Tensor,
    method: str = "distill",
    steps: int = 400,
    seed: int = 0,
    *,
    labels: Tensor | None = None,
    mirror: bool = True,
    logits: bool = True,
) -> Recovered:
    """Train a compressed network for some steps.

    Batches of 64 images, some of them mirrored, are for a method without labels mixed in pairs (Zhang et al., mixup,
    2018); Adam with one cycle of its learning rate; batch norms keep their statistics. A network that is not better
    than before on images it has not learned from is not returned: the one before is, and says so.

    Args:
        model: the compressed network; it is not changed.
        original: the network it was made from, or anything with such outputs, on the same device.
        images: (N, C, H, W), normalised, on the networks' device; N ≥ 2.
        method: a name of `core.recovery`.
        steps: of Adam, at least 1.
        seed: of batches and mixtures.
        labels: classes (N,), for a method that learns from labels.
        mirror: whether a mirrored image is as good as the image.
        logits: whether outputs (n, k), k > 1, are logits, of which only differences count; False: values.

    Returns:
        The network and how it went.

    Raises:
        UsageError: no such method, no steps, no images, or labels that are missing or too few.
        TrialError: the loss became infinite or NaN.
    """
    from core.graph.trace import duplicate, twin, undisturbed

    chosen = RECOVERIES.get(method)
    if chosen.loss is None:
        return Recovered(duplicate(model), (), math.nan, math.nan)
    labels = labels if chosen.needs_labels else None
    _check(method, images, steps, labels, wanted=chosen.needs_labels)
    loss = chosen.loss if chosen.needs_labels else partial(_between, chosen.loss, logits=logits)
    with undisturbed(model):
        torch.manual_seed(seed)
        work, teacher = duplicate(model).eval(), twin(original).eval()
        apart = max(1, len(images) // HELD_OUT)
        seen, others = (_Images(part, mark) for part, mark in _split(images, labels, apart))
        before = others.loss(loss, work, teacher)
        curve = _descend(loss, method, chosen.lr, work, teacher, seen, steps, mirror)
        after = others.loss(loss, work, teacher)
    better = after < before
    result = work if better else duplicate(model)
    for name, module in model.named_modules():
        result.get_submodule(name).training = module.training
    for name, weight in model.named_parameters():
        new = result.get_parameter(name).requires_grad_(weight.requires_grad)
        new.grad = None
    note = "" if better else f"{method} made it no better on held-out images: the network stays as it was"
    return Recovered(result, curve, before, after, note)


def _check(method: str, images: Tensor, steps: int, labels: Tensor | None, *, wanted: bool) -> None:
    """Look at the arguments.

    Raises:
        UsageError: there is nothing to learn from, or no step to learn in.
    """
    if steps < 1:
        raise UsageError(f"recovery with {steps} steps does nothing: ask for at least 1, or for no recovery")
    if not isinstance(images, torch.Tensor):
        raise UsageError(
            f"{method} trains networks of one input: pass a tensor of images (N, …), or leave the recovery out"
        )
    if len(images) < 2:
        raise UsageError(f"{method} learns from calibration images: pass at least 2, better 256")
    if wanted and (labels is None or len(labels) != len(images)):
        found = "none" if labels is None else f"{len(labels)}"
        raise UsageError(
            f"{method} learns from labels: pass labels (N,) of the {len(images)} images ({found} given), or take a"
            " method that needs none, such as distill"
        )


def _between(loss: Loss, outputs: Any, wanted: Any, *, logits: bool) -> Tensor:
    """The loss of two networks' outputs, the mean over all that are real; logits are taken less their mean.

    Raises:
        UsageError: none are.
    """

    def level(values: Tensor) -> Tensor:
        return values - values.mean(1, keepdim=True) if logits and are_logits(values) else values

    found = [loss(level(ours), level(theirs)) for theirs, ours in real_pairs(wanted, outputs)]
    if not found:
        raise UsageError("the network gives no real numbers that training could bring nearer: leave the recovery out")
    return torch.stack(found).mean()


@dataclass(frozen=True)
class _Images:
    """Images (N, …), and for a method that learns from labels these (N,)."""

    images: Tensor
    labels: Tensor | None

    def loss(self, loss: Loss, model: nn.Module, teacher: nn.Module) -> float:
        """The loss on all of them; infinite where it is none."""
        with torch.no_grad():
            wanted = teacher(self.images) if self.labels is None else self.labels
            found = float(loss(model(self.images), wanted))
        return found if math.isfinite(found) else math.inf

    def batches(self, mirror: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Endless batches; without labels, mixtures (1 − l)·x₁ + l·x₂ of pairs, l ~ U(0, ½)."""
        each = [1] * (self.images.dim() - 1)
        while True:
            for index in torch.split(torch.randperm(len(self.images)), BATCH):
                x = self.images[index.to(self.images.device)]
                if self.labels is None and x.is_floating_point():
                    other = self.images[torch.randint(len(self.images), (len(x),)).to(self.images.device)]
                    share = (torch.rand(len(x), *each) * 0.5).to(x)
                    x = (1 - share) * x + share * other
                if mirror and x.dim() == 4:
                    flip = (torch.rand(len(x), *each) < 0.5).to(x.device)
                    x = torch.where(flip, x.flip(-1), x)
                yield x, None if self.labels is None else self.labels[index.to(self.labels.device)]


def _split(images: Tensor, labels: Tensor | None, apart: int) -> list[tuple[Tensor, Tensor | None]]:
    """The images to learn from, and the last ``apart``."""
    marks = (None, None) if labels is None else (labels[:-apart], labels[-apart:])
    return list(zip((images[:-apart], images[-apart:]), marks, strict=True))


def _descend(
    loss: Loss,
    method: str,
    lr: float,
    work: nn.Module,
    teacher: nn.Module,
    seen: _Images,
    steps: int,
    mirror: bool,
) -> tuple[tuple[int, float], ...]:
    """Train ``work`` in place and return its curve.

    Raises:
        TrialError: the loss became infinite or NaN.
    """
    weights = [p.requires_grad_(True) for p in work.parameters() if p.is_floating_point()]
    optimiser = torch.optim.Adam(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=max(2, steps))
    every, curve, losses = -(-steps // POINTS), list[tuple[int, float]](), list[float]()
    for step, (x, labels) in zip(range(1, steps + 1), seen.batches(mirror), strict=False):
        wanted = teacher(x) if labels is None else labels
        with torch.enable_grad():
            found = loss(work(x), wanted)
            optimiser.zero_grad()
            found.backward()  # type: ignore[no-untyped-call]
        losses.append(float(found.detach()))
        if not math.isfinite(losses[-1]):
            raise TrialError(
                f"{method} diverged at step {step}: its loss is {losses[-1]}; compress less, or leave the recovery out"
            )
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == steps:
            curve.append((step, sum(losses) / len(losses)))
            losses.clear()
    return tuple(curve)
