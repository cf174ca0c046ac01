"""Peers once more, after training: 400 label-free steps of `distill`, and an epoch with all labels."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from torch import nn

from benchmarks.proof.methods import HEADLINE, RECALIBRATED, Kind, Method, Task
from benchmarks.proof.originals import COMPARED
from benchmarks.proof.peers import begin, beside, methods
from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting, Table
from core.errors import NeuronMergingError
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.recovery import recover
from core.training import train

SHARE = 0.1
STEPS = 400
EPOCH = Recipe(epochs=1, batch_size=128, lr=0.02, weight_decay=5e-4, augment=False)
STAGES = ("untrained", "distilled", "an epoch")


@dataclass(frozen=True)
class Trained:
    """A method on a network.

    Attributes:
        net: its name.
        method: its name.
        kind: whose it is.
        accuracy: percent at each of `STAGES`.
        reason: why there is nothing of it.
    """

    net: str
    method: str
    kind: Kind
    accuracy: tuple[float, ...] = ()
    reason: str = ""


def section(setting: Setting) -> Section:
    """The section of the page."""
    names = COMPARED if setting.full else COMPARED[:2]
    seen = min(setting.images, len(setting.dataset.test))
    halves = beside(half, [(name, which) for name in names for which in range(2)], setting)
    found = [in_order(halves[i], halves[i + 1]) for i in range(0, len(halves), 2)]
    measured = (
        f"{', '.join(names)}, {seen:,} test images, {CALIBRATION} training images to calibrate and distill with (seed"
        f" 0), {100 * SHARE:.0f} % of the parameters left"
    )
    return Section(measured, list(text(found)), ["torch-pruning"])


def half(which: tuple[str, int], setting: Setting) -> list[Trained]:
    """Every other row of a network, from the first or the second on: a core has one half."""
    name, first = which
    task = begin(name, setting)
    rows = [method for method in methods(task.original) if trains(method, task)]
    return [trained(method, task, setting) for method in rows[first::2]]


def in_order(evens: Sequence[Trained], odds: Sequence[Trained]) -> list[Trained]:
    """Both halves as one."""
    return [row for pair in zip_longest(evens, odds) for row in pair if row is not None]


def trains(method: Method, task: Task) -> bool:
    """Of a pair the row whose batch norms were measured anew: it is the better one, and training does so itself."""
    return method.kind == "ours" or not task.original.normed or method.name.endswith(RECALIBRATED)


def trained(method: Method, task: Task, setting: Setting) -> Trained:
    """A method's network before and after either training."""
    images, labels = setting.dataset.inputs("test", setting.images)

    def accuracy(model: nn.Module) -> float:
        return accuracy_and_loss(model, images, labels)[0]

    name = task.original.name
    try:
        network = method.make(task, method.ratio(task, SHARE))
        for weight in network.parameters():
            weight.requires_grad_(True)
        before = accuracy(network)
        distilled = accuracy(recover(network, task.original.model, task.images, "distill", STEPS))
        taught = accuracy(train(network, setting.dataset, EPOCH))
    except (NotRunError, NeuronMergingError) as error:
        return Trained(name, method.name, method.kind, reason=str(error))
    finally:
        task.prepared.pop(method.name, None)
    print(f"{name}: {method.name}: {before:.2f}, {distilled:.2f}, {taught:.2f}", file=sys.stderr, flush=True)
    return Trained(name, method.name, method.kind, (before, distilled, taught))


def text(found: Sequence[Sequence[Trained]]) -> Iterable[str | Table]:
    """What it comes to, and a table per network."""
    yield (
        f"*Distilled*: {STEPS} steps of `distill` towards the original's outputs on the calibration images, without"
        f" labels. *An epoch*: one pass over all training images with labels, SGD, peak rate {EPOCH.lr}. Each from the"
        " untrained network, seed 0, top-1 in percent; the best of a column is bold."
    )
    yield "\n".join(f"- {line}" for rows in found for line in said(rows))
    for rows in found:
        done = [row for row in rows if not row.reason]
        best = [max(row.accuracy[i] for row in done) for i in range(len(STAGES))]
        yield f"### {rows[0].net}"
        yield Table(["method", "whose", *STAGES], [_cells(row, best) for row in rows])


def said(rows: Sequence[Trained]) -> Iterable[str]:
    """By how much ours is ahead of the best other one at each stage, or behind it."""
    done = [row for row in rows if not row.reason]
    ours = next(row for row in done if row.method == HEADLINE)
    for i, stage in enumerate(STAGES):
        best = max((row for row in done if row.kind != "ours"), key=lambda row: row.accuracy[i])
        apart = ours.accuracy[i] - best.accuracy[i]
        which = "ahead of" if apart > 0 else "**not ahead** of"
        yield (
            f"**{ours.net}**, {stage}: `{HEADLINE}` ({ours.accuracy[i]:.2f} %) is {which} the best other one,"
            f" `{best.method}` ({best.kind}, {best.accuracy[i]:.2f} %), by {apart:.2f} points."
        )


def _cells(row: Trained, best: Sequence[float]) -> list[str]:
    if row.reason:
        return [f"`{row.method}`", row.kind, f"not run: {row.reason}", "", ""]
    figures = [f"**{a:.2f}**" if a == top else f"{a:.2f}" for a, top in zip(row.accuracy, best, strict=True)]
    return [f"`{row.method}`", row.kind, *figures]
