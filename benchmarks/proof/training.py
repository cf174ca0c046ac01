"""Reviewer 1: what merging is worth when the network is trained afterwards, and against training from scratch."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.proof.originals import Original, original
from benchmarks.proof.setting import CALIBRATION, Section, Setting, Table
from core.compress import compress
from core.datasets import ImageDataset
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.pixels import Images
from core.recipes import recipe_for
from core.training import train

METHODS: dict[str, dict[str, Any]] = {
    "pruned": {"decomposition": "none"},
    "merged (the paper)": {"decomposition": "most-similar"},
    "least-squares": {"decomposition": "least-squares"},
    "least-squares, obs": {"decomposition": "least-squares", "criterion": "obs"},
}
SCRATCH = "from scratch"
LONG = "from scratch, as long as the original and this"
FINE = Recipe(epochs=5, batch_size=128, lr=0.02, weight_decay=5e-4, augment=False)
LOOKS = (0, 1, 2, 3, 5)
SEEDS = range(3)
PICTURE = "proof-training.png"


@dataclass(frozen=True)
class Case:
    """A network, and how much of every set is removed.

    Attributes:
        net: its name.
        ratio: of every set.
        threshold: of merging.
        recipe: how it is trained from scratch; its epochs are those of the original.
    """

    net: str
    ratio: float
    threshold: float
    recipe: Recipe


CASES = (
    Case("LeNet-300-100", 0.8, 0.45, recipe_for("lenet-300-100", "fashion-mnist")),
    Case("VGG-like", 0.5, 0.1, Recipe(epochs=3, batch_size=128, lr=0.1, weight_decay=5e-4, augment=False)),
)
Curves = Mapping[str, Sequence[Sequence[float]]]
"""Method -> of each seed the accuracy (percent) after 0, 1, … epochs."""


def section(setting: Setting) -> Section:
    """The section of the page."""
    found = {}
    for case in CASES if setting.full else CASES[:1]:
        net = original(case.net, setting)
        found[case.net] = (case, net, measured(case, net, setting))
    draw({name: curves for name, (_, _, curves) in found.items()}, setting)
    parts: list[str | Table] = [
        f"{FINE.epochs} epochs with labels on all training images, SGD, peak rate {FINE.lr} in one cycle (from"
        " scratch: the original's own rate). From scratch is the same narrow network with new weights, once for as many"
        " epochs and once for those of the original as well. Mean of the seeds, and in brackets least and largest."
    ]
    for case, net, curves in found.values():
        parts += [f"### {case.net}, {100 * case.ratio:.0f} % of every set removed, weights {net.checksum}"]
        parts += [said(curves), table(curves)]
    parts.append(f"![Accuracy over epochs of training, mean and range of the seeds]({PICTURE})")
    images = min(setting.images, len(setting.dataset.test))
    return Section(
        f"{images:,} test images, {CALIBRATION} training images to compress with (seed 0), training seeds"
        f" {SEEDS[0]} to {SEEDS[-1]}",
        parts,
    )


def measured(case: Case, net: Original, setting: Setting) -> dict[str, list[list[float]]]:
    """All curves of a network."""
    images, labels = setting.dataset.inputs("test", setting.images)
    calibration, _ = setting.calibration()
    curves: dict[str, list[list[float]]] = {}

    def note(name: str, model: nn.Module, recipe: Recipe, seed: int) -> None:
        curve = trained(model, setting.dataset, recipe, seed, images, labels)
        curves.setdefault(name, []).append(curve)
        print(f"{case.net}: {name}, seed {seed}: {curve}", file=sys.stderr, flush=True)

    for seed in SEEDS:
        for name, how in METHODS.items():
            options = {"threshold": case.threshold} if how["decomposition"] == "most-similar" else {}
            how = {**how, "options": options, "calibration": calibration}
            cut = compress(net.model, images[:1], ratio=case.ratio, **how).model
            note(name, cut, FINE, seed)
        note(SCRATCH, fresh(cut, seed), replace(case.recipe, epochs=FINE.epochs), seed)
        whole = replace(case.recipe, epochs=case.recipe.epochs + FINE.epochs)
        note(LONG, fresh(cut, seed), whole, seed)
    return curves


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """The same network with new weights, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model


def trained(
    model: nn.Module, dataset: ImageDataset, recipe: Recipe, seed: int, images: Images, labels: Tensor
) -> list[float]:
    """Train in place; accuracy before, and at the first report after each epoch (at most 20 steps later)."""

    def look() -> float:
        modes = {module: module.training for module in model.modules()}
        found = accuracy_and_loss(model.eval(), images, labels)[0]
        for module, mode in modes.items():
            module.training = mode
        return found

    for weight in model.parameters():
        weight.requires_grad_(True)
    curve = [look()]

    def progress(step: int, steps: int, _: str) -> None:
        if step < steps and step * recipe.epochs >= len(curve) * steps:
            curve.append(look())

    train(model, dataset, recipe, seed=seed, progress=progress)
    return [*curve, look()]


def at(curves: Curves, name: str, epoch: int) -> list[float]:
    """Accuracies of the seeds after some epochs; of the long training at its end."""
    return [curve[-1] if name == LONG else curve[epoch] for curve in curves[name]]


def table(curves: Curves) -> Table:
    """Accuracy after some epochs."""
    rows = []
    for name in curves:
        cells = []
        for epoch in LOOKS:
            if name == LONG and epoch < LOOKS[-1]:
                cells.append("")
                continue
            values = at(curves, name, epoch)
            cells.append(f"{statistics.fmean(values):.2f} ({min(values):.2f}–{max(values):.2f})")
        rows.append([name, *cells])
    return Table(["", *(f"{epoch} epochs" for epoch in LOOKS)], rows)


def said(curves: Curves) -> str:
    """By how much merging, and the best of ours, are ahead of pruning and of training from scratch."""
    pruned, merged, scratch = "pruned", "merged (the paper)", SCRATCH
    best = "least-squares, obs"

    def apart(one: str, other: str, epoch: int) -> str:
        difference = statistics.fmean(at(curves, one, epoch)) - statistics.fmean(at(curves, other, epoch))
        low = min(at(curves, one, epoch)) > max(at(curves, other, epoch))
        high = max(at(curves, one, epoch)) < min(at(curves, other, epoch))
        return f"{difference:+.2f}{'' if low or high else ' (within the seeds)'}"

    def over(one: str, other: str) -> str:
        return ", ".join(f"{apart(one, other, epoch)} after {epoch}" for epoch in LOOKS)

    def lead(name: str) -> str:
        left = next((epoch for epoch in LOOKS if min(at(curves, name, epoch)) <= max(at(curves, pruned, epoch))), None)
        return "stays" if left is None else "is none" if left == 0 else f"is gone after {left} epoch{'s' * (left > 1)}"

    end = LOOKS[-1]
    return (
        f"**The lead of merging over pruning {lead(merged)} of training with labels, that of `{best}` {lead(best)}.**"
        f" Points of merging over pruning: {over(merged, pruned)} epochs. Of `{best}` over pruning:"
        f" {over(best, pruned)}. Of `{best}` over training from scratch for as long: {apart(best, scratch, end)} at the"
        f" end, and for as long as the original and this: {apart(best, LONG, end)}. What is within the seeds is no"
        " difference, and what is negative speaks against us."
    )


def draw(found: Mapping[str, Curves], setting: Setting) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    from dashboards.palette import COLOURS

    figure = Figure(figsize=(6.5 * len(found), 4), layout="constrained")
    grid = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (net, curves) in zip(grid, found.items(), strict=True):
        for (name, seeds), colour in zip(curves.items(), COLOURS, strict=False):
            if name == LONG:
                end = statistics.fmean(at(curves, name, 0))
                axes.axhline(end, color=colour, linestyle=":", label=f"{name} (its end)")
                continue
            columns = list(zip(*seeds, strict=True))
            x = range(len(columns))
            axes.plot(x, [statistics.fmean(c) for c in columns], marker="o", markersize=4, color=colour, label=name)
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        first = min(curve[1] for seeds in curves.values() for curve in seeds)
        axes.set(title=net, xlabel="epochs with labels", ylabel="accuracy, %", ylim=(min(first, 80) - 2, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(setting.pictures / PICTURE, dpi=100)
