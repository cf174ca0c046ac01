"""Train a network from scratch on images that are all in memory; deterministic for a seed and a thread count.

SGD with Nesterov momentum; the rate rises linearly over the first fifth of the steps and falls as a half cosine
(one cycle, Smith & Topin 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.datasets import ImageDataset
from core.errors import ModelError
from core.measure import fastest_layout
from core.models import Recipe
from core.resumable import Continuation, random_state, set_random_state

StepProgress = Callable[[int, int, str], None]
"""(steps done, steps in total, a line of text)."""
REPORT_EVERY = 20
WARM_UP = 0.2
LAYOUTS = {str(layout): layout for layout in (torch.contiguous_format, torch.channels_last)}


def train(
    model: nn.Module,
    dataset: ImageDataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: StepProgress | None = None,
    continuation: Continuation | None = None,
) -> nn.Module:
    """Train ``model`` in place on the training split and return it in eval mode.

    Args:
        model: any network from images (N, C, H, W) to logits.
        dataset: its validation and test splits are not touched.
        recipe: epochs, batch size, rates and augmentation.
        seed: of the order, the augmentation and the network's own draws (dropout).
        device: where to train.
        progress: called every few steps.
        continuation: keeps the training after its epochs, and goes on with one that was broken off; the weights are
            those of a training in one piece.

    Raises:
        ModelError: the loss is no longer finite.
    """
    rng = torch.Generator().manual_seed(seed)
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _threads(model):
        torch.default_generator.manual_seed(seed)
        model.to(device).eval()
        layout = _layout(model, dataset, device)
        model.train()
        _run(model, dataset, recipe, rng, device, layout, progress or _silent, continuation)
    if continuation is not None:
        continuation.done()
    return model.eval()


@contextmanager
def _threads(model: nn.Module) -> Iterator[None]:
    """One thread for a network of linear layers only: its steps are too short to share.

    On a busy machine of two cores two threads wait for each other: LeNet-300-100 took 128 s for 15 s.
    """
    before = torch.get_num_threads()
    convolves = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    torch.set_num_threads(before if convolves else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    model: nn.Module,
    dataset: ImageDataset,
    recipe: Recipe,
    rng: torch.Generator,
    device: str,
    layout: torch.memory_format,
    progress: StepProgress,
    continuation: Continuation | None,
) -> None:
    optimiser = _optimiser(model, recipe)
    per_epoch = len(_starts(dataset, recipe))
    steps = recipe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step, steps))
    parts: dict[str, Any] = {"model": model, "optimiser": optimiser, "schedule": schedule}
    step, done = 0, 0
    if continuation is not None and (kept := continuation.load(parts, device)):
        done, layout = kept["epochs"], LAYOUTS[kept["layout"]]
        step = done * per_epoch
        set_random_state(kept["random"], rng, device)
        progress(step, steps, f"goes on after epoch {done}/{recipe.epochs}")
    for epoch in range(done + 1, recipe.epochs + 1):
        for images, labels in _batches(dataset, recipe, rng):
            step += 1
            images = images.to(device, memory_format=layout)
            loss = F.cross_entropy(model(images), labels.to(device))
            if not math.isfinite(loss.item()):
                raise ModelError(f"training diverged at step {step} of {steps}: try a lower lr than {recipe.lr:g}")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if step % REPORT_EVERY == 0 or step == steps:
                progress(step, steps, f"epoch {epoch}/{recipe.epochs}, loss {loss.item():.3f}")
        if continuation is not None and epoch < recipe.epochs:
            random = random_state(rng, device)
            continuation.save(parts, {"epochs": epoch, "layout": str(layout), "random": random})


def one_cycle(step: int, steps: int) -> float:
    """Factor of the peak rate at ``step``: up linearly over the first fifth, then down to 0 as a half cosine."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def shifted(images: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move each image (N, C, H, W) by up to ``most`` pixels in each direction; black comes in at the edges."""
    n, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = torch.randint(0, 2 * most + 1, (2, n, 1), generator=rng)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    chosen = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return chosen.permute(0, 3, 1, 2)


def mirrored(images: Tensor, rng: torch.Generator) -> Tensor:
    """Flip every image (N, C, H, W) left to right with probability one half."""
    flip = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


def _batches(dataset: ImageDataset, recipe: Recipe, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch."""
    split = dataset.train
    most = max(1, round(dataset.shape[-1] / 14))
    order = torch.randperm(len(split), generator=rng)
    for start in _starts(dataset, recipe):
        chosen = order[start : start + recipe.batch_size]
        images = split.images[chosen]
        if recipe.augment:
            images = shifted(images, most, rng)
            images = mirrored(images, rng) if dataset.mirror else images
        yield dataset.normalise(images), split.labels[chosen]


def _starts(dataset: ImageDataset, recipe: Recipe) -> range:
    """Where each batch of an epoch starts; a last batch of one image is left out, batch norm cannot train on it."""
    count = len(dataset.train)
    return range(0, count - 1 if count % recipe.batch_size == 1 else count, recipe.batch_size)


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _layout(model: nn.Module, dataset: ImageDataset, device: str) -> torch.memory_format:
    with torch.no_grad():
        return fastest_layout(model, dataset.normalise(dataset.train.images[:1]).to(device))


def _silent(*_: object) -> None:
    return None
