"""Reviewer 2: Network Decoupling (Guo et al., BMVC 2018), alone and behind merging, at equal parameters."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.proof.methods import STEPS, Task, ratio_for
from benchmarks.proof.originals import COMPARED, parameters
from benchmarks.proof.peers import begin, beside
from benchmarks.proof.peers_row import LEFT, Row
from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting, Table
from core.compress import compress, prepare
from core.errors import NeuronMergingError
from core.measure import accuracy_and_loss

HIGHEST = 1 - 1 / STEPS


@dataclass(frozen=True)
class Way:
    """A row.

    Attributes:
        name: on the page.
        how: arguments of `compress`.
        amount: of decoupling; None: as much as it takes, and no channel is removed.
        images: whether unlabelled images are looked at.
    """

    name: str
    how: dict[str, Any]
    amount: float | None
    images: bool = True


NONE, MERGED = {"decomposition": "none"}, {"decomposition": "most-similar"}
SQUARES = {"decomposition": "least-squares"}
OBS = {**SQUARES, "criterion": "obs"}
BUDGET = {**OBS, "allocation": "budget"}
AMOUNTS = (0.5, 0.7, 0.85)
ALONE = "decoupling"
WAYS = (
    Way(ALONE, NONE, None, images=False),
    Way("decoupling, re-calibrated", {**NONE, "options": {"bn_recalibrate": True}}, None),
    Way("decoupling, least-squares", SQUARES, None),
    Way("most-similar", MERGED, 0.0, images=False),
    Way("most-similar + decoupling 0.5", MERGED, 0.5, images=False),
    Way("least-squares, obs", OBS, 0.0),
    *(Way(f"least-squares, obs + decoupling {amount:g}", OBS, amount) for amount in AMOUNTS),
    Way("least-squares, obs, budget", BUDGET, 0.0),
    Way("least-squares, obs, budget + decoupling 0.5", BUDGET, 0.5),
)


def section(setting: Setting) -> Section:
    """The section of the page."""
    names = COMPARED[1:] if setting.full else COMPARED[1:3]
    seen = min(setting.images, len(setting.dataset.test))
    found = dict(zip(names, beside(measured, names, setting), strict=True))
    parts: list[str | Table] = [
        "`decoupling` alone removes no channel: convolutions become T depthwise and pointwise terms, T layer by layer"
        " so that the network has at most so many parameters; *least-squares* then refits all layers at these ranks. A"
        " number behind `+ decoupling` is its amount (0: none, 1: one term everywhere), and so many channels go before"
        " that the parameters are as many. Top-1 in percent; the best of a column is bold; *–*: no such network"
        " is that small. Pointwise, depthwise and linear layers are not decoupled, in any row.",
    ]
    for name, rows in found.items():
        parts += [f"### {name}", "\n".join(f"- {line}" for line in said(rows)), table(rows)]
    return Section(
        f"{', '.join(names)}, {seen:,} test images, {CALIBRATION} training images to calibrate with (seed 0)", parts
    )


def measured(name: str, setting: Setting) -> list[Row]:
    """All rows of a network."""
    task = begin(name, setting)
    images, labels = setting.dataset.inputs("test", setting.images)
    rows = []
    for way in WAYS:
        accuracy, left, clock, reason = list[float](), list[float](), time.process_time(), ""
        try:
            for share in LEFT:
                network = at(task, way, share)
                accuracy.append(accuracy_and_loss(network, images, labels)[0])
                left.append(parameters(network) / task.original.params)
        except (NotRunError, NeuronMergingError) as error:
            reason = str(error)
        kind = "images" if way.images else "none"
        rows.append(Row(way.name, kind, tuple(accuracy), tuple(left), time.process_time() - clock, reason=reason))
        print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def at(task: Task, way: Way, share: float) -> nn.Module:
    """A way's network of at most ``share`` of the parameters.

    Raises:
        NotRunError: there is none.
    """
    name = way.name if "budget" in way.name else ""
    if name not in task.prepared:
        task.prepared[name] = prepare(task.original.model, task.images[:1])

    def made(how: dict[str, Any], ratio: float, amount: float) -> nn.Module:
        options = {**how.get("options", {}), "decoupling": amount}
        if how["decomposition"] == "most-similar":
            options["threshold"] = 0.1  # the paper's for networks with batch norms
        asked = {**how, "options": options, "calibration": task.images if how is not NONE else None}
        return compress(task.prepared[name], task.images[:1], ratio=ratio, **asked).model

    def small(ratio: float, amount: float) -> nn.Module:
        return first(lambda x: made(way.how, x, amount), ratio, share * task.original.params)

    if way.amount is None:
        amount = ratio_for(task, ALONE, share, lambda amount: made(NONE, 0.0, max(amount, 1 / STEPS)))
        return made(way.how, 0.0, amount)
    if "allocation" not in way.how:
        what = f"decoupling {way.amount:g}"
        return small(ratio_for(task, what, share, lambda ratio: made(NONE, ratio, way.amount or 0.0)), way.amount)
    guess = 1 - share
    if way.amount:
        smaller = parameters(made(way.how, guess, way.amount)) / (share * task.original.params)
        guess = max(0.0, 1 - share / smaller)
    return small(guess, way.amount)


def first(make: Callable[[float], nn.Module], ratio: float, most: float) -> nn.Module:
    """The network of about the least ratio from ``ratio`` on that has at most so many parameters.

    Raises:
        NotRunError: none has.
    """

    def tried(step: int) -> nn.Module | None:
        try:
            return make(min(ratio + step / STEPS, HIGHEST))
        except NeuronMergingError:  # a budget that no network meets
            return None

    step, outside = 0, -1  # in steps beyond the ratio: the least that is known to be enough, and one that is not
    while (found := tried(step)) is not None and parameters(found) > most:
        if ratio + step / STEPS >= HIGHEST:
            break
        outside, step = step, max(1, 2 * step)
    while step - outside > 1:
        middle = (step + outside) // 2
        other = tried(middle)
        if other is not None and parameters(other) > most:
            outside = middle
        else:
            found, step = found if other is None else other, middle
    if found is None or parameters(found) > most:
        raise NotRunError(f"no ratio from {ratio:.3f} on leaves {most:.0f} parameters")
    return found


def said(rows: Sequence[Row]) -> Iterable[str]:
    """What decoupling is worth alone and behind a cut, and what speaks against it."""
    by_name = {row.method: row for row in rows}

    def share(i: int) -> str:
        return f"{100 * LEFT[i]:.0f} %"

    def gain(one: Row, other: Row) -> str:
        found = [
            f"{a - b:+.2f} at {share(i)}" for i, (a, b) in enumerate(zip(one.accuracy, other.accuracy, strict=False))
        ]
        return ", ".join(found) or "not reached at any size"

    alone, merged = by_name[ALONE], by_name["most-similar"]
    yield f"Without images, `decoupling` alone over merging (`most-similar`), points: {gain(alone, merged)}."
    yield (
        "With images, `decoupling, least-squares` over `least-squares, obs`, points:"
        f" {gain(by_name['decoupling, least-squares'], by_name['least-squares, obs'])}."
    )
    for base in ("most-similar", "least-squares, obs", "least-squares, obs, budget"):
        both = [row for row in rows if row.method.startswith(f"{base} + ")]
        yield f"What it adds to `{base}`: " + "; ".join(
            f"{row.method.removeprefix(f'{base} + ')} {gain(row, by_name[base])}" for row in both
        )
    for i in range(len(LEFT)):
        there = [row for row in rows if len(row.accuracy) > i]
        have = [row for row in there if "decoupling" in row.method]
        without = max((row for row in there if row not in have), key=lambda row: row.accuracy[i])
        best = max(have, key=lambda row: row.accuracy[i])
        apart = best.accuracy[i] - without.accuracy[i]
        verdict = "ahead of" if apart > 0 else "**not ahead** of"
        yield (
            f"At {share(i)} the best with decoupling, `{best.method}` ({best.accuracy[i]:.2f} %), is {verdict} the best"
            f" without, `{without.method}` ({without.accuracy[i]:.2f} %), by {apart:.2f} points."
        )


def table(rows: Sequence[Row]) -> Table:
    """Accuracy at each share, hypervolume and seconds."""
    best = [max((row.accuracy[i] for row in rows if len(row.accuracy) > i), default=0.0) for i in range(len(LEFT))]
    lines = []
    for row in rows:
        cells = [f"**{a:.2f}**" if a == top else f"{a:.2f}" for a, top in zip(row.accuracy, best, strict=False)]
        cells += ["–"] * (len(LEFT) - len(cells))
        volume = f"{row.volume:.1f}" if row.accuracy else "–"
        lines.append([f"`{row.method}`", row.kind, *cells, volume, f"{row.seconds:.0f}"])
    heads = (f"{100 * share:.0f} %" for share in LEFT)
    return Table(["method", "looks at", *heads, "hypervolume", "seconds"], lines)
