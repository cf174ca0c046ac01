"""What merging costs next to the Gram matrices that it cannot do without, and what choosing by ``obs`` costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.merge_speed import Merging, against_loops
from benchmarks.proof.setting import CALIBRATION, Section, Setting, Table
from core.compress import compress, prepare

WIDTHS, DEPTHS = (32, 64, 128, 256, 512), (2, 4, 8, 16, 32)
DEPTH, WIDTH = 4, 64
CHANNELS = (32, 64, 128, 256)
REPEATS = 3
WANTED = 50
"""Merging should be so many times faster than loops over pairs of channels."""


def section(setting: Setting) -> Section:
    """The section of the page; the full one adds wider and deeper stacks."""
    last = None if setting.full else -1
    wide = [(width, DEPTH) for width in WIDTHS[:last]]
    deep = [(WIDTH, depth) for depth in DEPTHS[:last]]
    across, down = ([row(width, depth) for width, depth in found] for found in (wide, deep))
    parts: list[str | Table] = [
        "A stack of 3x3 convolutions of one width, each with batch norm and ReLU, random weights, 8x8 images, half of"
        " the channels of every layer removed. *Gram*: the inner products WWᵀ of all layers in float64, nothing else."
        " *Merging*: `compress` of the bare network by `most-similar` (follow, score, merge, cut, compare with the"
        " original); *again*: another ratio on what was found. *Refit*: `least-squares` on the calibration images."
        f" Seconds of CPU, the best of {REPEATS}, and in brackets multiples of *Gram*.",
        Table(["width x depth", "Gram", "merging", "again", "refit"], [cells(*found) for found in (*across, *down)]),
        _said(across, down),
        "Choosing the channels of one set by `obs`, of n channels that a 3x3 convolution reads, on as many images, once"
        " for all ratios (the network is followed for it, too):",
        *_obs(CHANNELS if not setting.full else (*CHANNELS, 512)),
        *_loops(against_loops()),
    ]
    return Section(f"{CALIBRATION} random images, seed 0", parts)


def stack(width: int, depth: int) -> nn.Module:
    """Convolutions of one width."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(width if i else 3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


def best(run: Callable[[], object]) -> float:
    """CPU seconds of the fastest of some runs."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def row(width: int, depth: int) -> tuple[int, int, list[float]]:
    """Width, depth, and the seconds of each column."""
    torch.manual_seed(0)
    model, images = stack(width, depth), torch.randn(CALIBRATION, 3, 8, 8)
    weights = [m.weight.detach().flatten(1) for m in model.modules() if isinstance(m, nn.Conv2d)]
    example, prepared = images[:1], prepare(model, images[:1])
    ratios = iter([0.5, 0.4, 0.45, 0.55])

    def cut(how: str, of: Any, ratio: float, seen: Tensor | None = None) -> object:
        return compress(of, example, ratio=ratio, decomposition=how, calibration=seen)

    cut("most-similar", prepared, next(ratios))
    return (
        width,
        depth,
        [
            best(lambda: [w @ w.T for w in map(torch.Tensor.double, weights)]),
            best(lambda: cut("most-similar", model, 0.5)),
            best(lambda: cut("most-similar", prepared, next(ratios))),
            best(lambda: cut("least-squares", model, 0.5, images)),
        ],
    )


def cells(width: int, depth: int, seconds: Sequence[float]) -> list[str]:
    """A row of the table."""
    gram, *rest = seconds
    return [f"{width} x {depth}", f"{gram:.4f}", *(f"{value:.3f} ({value / gram:,.0f})" for value in rest)]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of y ~ xᵖ, by least squares of the logarithms."""
    a, b = (torch.tensor([math.log(value) for value in values], dtype=torch.float64) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a * a).sum())


Timed = tuple[int, int, list[float]]


def _said(across: Sequence[Timed], down: Sequence[Timed]) -> str:
    wide, deep = [(width, seconds) for width, _, seconds in across], [(depth, seconds) for _, depth, seconds in down]
    named = {"Gram": 0, "merging": 1, "refit": 3}

    def of(found: Sequence[tuple[int, list[float]]]) -> str:
        powers = {name: exponent([x for x, _ in found], [s[i] for _, s in found]) for name, i in named.items()}
        return ", ".join(f"{name} {power:.1f}" for name, power in powers.items())

    small, large = wide[0][1], wide[-1][1]
    return (
        f"Growth with the width, as a power of it: {of(wide)}; with the depth: {of(deep)}. Against us: what follows and"
        f" checks the network is the most of it where layers are small (merging is {small[1] / small[0]:,.0f} Gram"
        f" matrices at width {wide[0][0]}, {large[1] / large[0]:,.0f} at {wide[-1][0]})."
    )


def _obs(channels: Sequence[int]) -> list[str | Table]:
    found = []
    for n in channels:
        torch.manual_seed(0)
        model, images = stack(n, 2), torch.randn(CALIBRATION, 3, 8, 8)
        chosen = prepare(model, images[:1]).channels.sets[0]

        def choose(model: nn.Module = model, images: Tensor = images, chosen: Any = chosen) -> object:
            return prepare(model, images[:1]).scores(chosen, "obs", images, 0, None)

        found.append(best(choose))
    rows = [[str(n), f"{seconds:.2f}"] for n, seconds in zip(channels, found, strict=True)]
    power = exponent(channels[-3:], found[-3:])
    return [Table(["n", "seconds"], rows), f"The last three grow with the power {power:.1f} of n."]


def _loops(found: Merging) -> list[str | Table]:
    """VGG-16 against loops over pairs of channels."""
    timed = {
        "scale matrices by loops over pairs of channels": found.loops,
        "scale matrices here, from the inner products": found.scales,
        "inner products and scale matrices here": found.products + found.scales,
        "`compress` once more, on what was found": found.further,
        "`compress` of the bare network": found.bare,
    }
    times = {what: found.loops / value for what, value in timed.items()}
    said = (
        "### A VGG-16 against the published loops\n\nHalf of the channels of all 13 convolutions. The loops are the"
        " plain form of the paper's algorithm: for every removed channel and every kept one a cosine, a scale and a"
        " distance of biases. *Scale matrices* is the same work here; `compress` also follows the network, scores,"
        " merges into the next layers, cuts, and compares with the original. Seconds of CPU, one core, one run."
    )
    verdict = f"Wanted are {WANTED} times."
    if short := [f"{what} ({value:.0f} times)" for what, value in times.items() if 1 < value < WANTED]:
        verdict += (
            f" Against us, not reached by: {'; '.join(short)}. The loops only make matrices; the inner products in"
            f" float64, made once for all trials, cost 1/{found.loops / found.products:.0f} of them, and no merging of"
            " a bare network is faster than its inner products."
        )
    rows = [[what, f"{value:.3f}", f"{times[what]:.0f}"] for what, value in timed.items()]
    return [said, Table(["", "seconds", "times faster"], rows), verdict]
