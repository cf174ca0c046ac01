"""Reviewer 1: the theorem needs a positively homogeneous activation; what merging is worth behind others."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.proof.nets import mlp
from benchmarks.proof.setting import CALIBRATION, Section, Setting, Table
from core.compress import compress, prepare
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.training import train

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "hard-swish": nn.Hardswish,
    "tanh": nn.Tanh,
}
HOMOGENEOUS = ("ReLU", "LeakyReLU")
"""φ(cy) = c·φ(y) for c > 0: behind these, proportional neurons are merged without loss, elsewhere equal ones only."""
RECIPE = Recipe(epochs=3, batch_size=128, lr=0.05, weight_decay=5e-4, augment=False)
RATIOS = (0.5, 0.7)
METHODS = {"pruned": "none", "merged": "most-similar", "gram": "gram", "least-squares": "least-squares"}
SEEDS = range(3)
Found = dict[tuple[str, str, float], list[float]]
"""(activation, method, ratio) -> accuracy of each seed, percent; ratio 0 is the original."""


def section(setting: Setting) -> Section:
    """The section of the page; the same in both commands but for the images."""
    found: Found = {}
    for name, activation in ACTIVATIONS.items():
        for seed in SEEDS:
            print(f"activations: {name}, seed {seed}", file=sys.stderr, flush=True)
            measured(name, activation, seed, setting, found)
    images = min(setting.images, len(setting.dataset.test))
    return Section(
        f"networks of four hidden layers (300, 200, 100, 50), trained {RECIPE.epochs} epochs on FashionMNIST with seeds"
        f" {SEEDS[0]} to {SEEDS[-1]}, {images:,} test images, {CALIBRATION} training images (seed 0), criterion `l1`,"
        " threshold 0.45",
        [
            "Mean of the seeds, top-1 in percent. *Exact*: proportional neurons are merged without any loss; elsewhere"
            " only equal ones are.",
            table(found),
            said(found),
        ],
    )


def measured(name: str, activation: type[nn.Module], seed: int, setting: Setting, found: Found) -> None:
    """Train a network, compress it in every way, and add what came of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = mlp(activation)
    net = train(net, setting.dataset, RECIPE, seed=seed).eval()
    images, labels = setting.dataset.inputs("test", setting.images)
    calibration, _ = setting.calibration()
    prepared = prepare(net, images[:1])
    found.setdefault((name, "original", 0.0), []).append(accuracy_and_loss(net, images, labels)[0])
    for ratio in RATIOS:
        for method, decomposition in METHODS.items():
            options = {"threshold": 0.45} if decomposition == "most-similar" else {}
            cut = compress(
                prepared,
                images[:1],
                ratio=ratio,
                decomposition=decomposition,
                options=options,
                calibration=calibration,
            )
            accuracy = accuracy_and_loss(cut.model, images, labels)[0]
            found.setdefault((name, method, ratio), []).append(accuracy)


def table(found: Found) -> Table:
    """A row per activation."""
    rows = []
    for name in ACTIVATIONS:
        cells = [f"{statistics.fmean(found[name, method, ratio]):.1f}" for ratio in RATIOS for method in METHODS]
        kind = "exact" if name in HOMOGENEOUS else "approximate"
        rows.append([name, kind, f"{statistics.fmean(found[name, 'original', 0.0]):.1f}", *cells])
    heads = [f"{100 * ratio:.0f} %, {method}" for ratio in RATIOS for method in METHODS]
    return Table(["activation", "merging is", "original", *heads], rows)


def gain(found: Found, name: str, ratio: float) -> Sequence[float]:
    """Points of merging over pruning, of each seed."""
    pairs = zip(found[name, "merged", ratio], found[name, "pruned", ratio], strict=True)
    return [merged - pruned for merged, pruned in pairs]


def said(found: Found) -> str:
    """What merging gains behind each activation, and where it costs."""
    lines = []
    for ratio in RATIOS:
        parts = []
        for name in ACTIVATIONS:
            points = gain(found, name, ratio)
            parts.append(f"{name} {statistics.fmean(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})")
        lines.append(f"- Points of merging over pruning at {100 * ratio:.0f} %: {', '.join(parts)}")
    worse = [
        f"{name} at {100 * ratio:.0f} %"
        for name in ACTIVATIONS
        for ratio in RATIOS
        if statistics.fmean(gain(found, name, ratio)) < 0
    ]
    lines.append(f"- Against us, merging is worse than pruning: {', '.join(worse) if worse else 'nowhere here'}.")
    best = [f"{name} {statistics.fmean(found[name, 'least-squares', RATIOS[-1]]):.1f}" for name in ACTIVATIONS]
    lines.append(
        f"- `least-squares` asks nothing of an activation; with {100 * RATIOS[-1]:.0f} % removed: {', '.join(best)}."
    )
    return "\n".join(lines)
