"""Reviewer 1: what merging is worth when the network is trained afterwards, and against training small networks."""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.proof.curves import curve_of
from benchmarks.proof.originals import original
from benchmarks.proof.peers import begin, beside
from benchmarks.proof.setting import CALIBRATION, Section, Setting, Table
from benchmarks.proof.starts import STARTS, Bench, Case, Start, made
from benchmarks.proof.training_text import FINE, LONGER, PICTURE, Curves, draw, said, table
from core.models import Recipe

SEEDS = range(3)
CASES = (Case("LeNet-300-100", 0.8, 0.45), Case("VGG-like", 0.5, 0.1))
Task = tuple[int, str]
"""Which of `CASES`, and whose curves."""


def section(setting: Setting) -> Section:
    """The section of the page."""
    images = min(setting.images, len(setting.dataset.test))  # data that is missing says so here
    cases = CASES if setting.full else CASES[:1]
    nets = [original(case.net, setting) for case in cases]  # trained once, before there are processes
    tasks = [(case, name) for case in range(len(cases)) for name in longest_first()]
    done = dict(zip(tasks, beside(measured, tasks, setting), strict=True))
    found: dict[str, Curves] = {case.net: {name: done[i, name] for name in names()} for i, case in enumerate(cases)}
    draw(found, setting)
    parts: list[str | Table] = [budget()]
    for case, net in zip(cases, nets, strict=True):
        parts += [f"### {case.net}, {100 * case.ratio:.0f} % of every set removed, weights {net.checksum}"]
        parts += [said(found[case.net]), table(found[case.net])]
    parts.append(f"![Accuracy over epochs of training, mean and range of the seeds]({PICTURE})")
    return Section(
        f"{images:,} test images, {CALIBRATION} training images to compress with (seed 0; SNIP sees their labels),"
        f" training seeds {SEEDS[0]} to {SEEDS[-1]}",
        parts,
    )


def budget() -> str:
    """What is trained how long."""
    epochs = ", ".join(f"{case.recipe.epochs} ({case.net})" for case in CASES)
    return (
        "All networks of a table have equally many parameters. What is made of the trained original is trained"
        f" {FINE.epochs} epochs more, with labels on all training images, SGD, peak rate {FINE.lr} in one cycle: the"
        f" whole budget are the original's epochs, {epochs}, and these {FINE.epochs}. **From scratch** is the same"
        " narrow network with new weights; **lottery ticket** keeps the channels that the trained network has kept by"
        " l1, with the weights that its training began with; **SNIP** keeps the channels of new weights on which the"
        f" loss depends most. These three are trained at the original's own rate, once for {FINE.epochs} epochs, and"
        " once for as long as the original and the others together, which is the equal budget of those that need no"
        " trained original (the lottery ticket has had the original's epochs before, to find its channels). Ticket and"
        " SNIP are of channels, every set cut alike, since that is what makes a network smaller; both papers remove"
        " single weights. A start that is the same for all seeds differs only in the order of its training. Mean of"
        " the seeds, and in brackets least and largest."
    )


def names() -> list[str]:
    """Whose curves there are."""
    return [start.name for start in STARTS] + [start.name + LONGER for start in STARTS if start.anew]


def longest_first() -> list[str]:
    """The same in an order that leaves no core without work for long."""
    return sorted(names(), key=lambda name: not name.endswith(LONGER))


def schedule(case: Case, name: str) -> tuple[Start, Recipe]:
    """What a curve starts from, and how it is trained."""
    start = next(start for start in STARTS if start.name == name.removesuffix(LONGER))
    if not start.anew:
        return start, FINE
    more = case.recipe.epochs if name.endswith(LONGER) else 0
    return start, replace(case.recipe, epochs=FINE.epochs + more)


def measured(task: Task, setting: Setting) -> list[list[float]]:
    """The curves of a name, one per seed."""
    case, name = CASES[task[0]], task[1]
    net = begin(case.net, setting).original
    start, recipe = schedule(case, name)
    bench, found = Bench.of(case, net, setting), []
    about = {"net": case.net, "ratio": case.ratio, "name": name}
    for seed in SEEDS:
        found.append(curve_of(made(start, bench, seed), {**about, "original": net.checksum}, recipe, seed, setting))
        print(f"{case.net}: {name}, seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
    return found
