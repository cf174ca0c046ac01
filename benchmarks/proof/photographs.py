"""Peers on a network as people have it: EfficientNet-Lite0 with its ImageNet weights, on crops of photographs.

There are no labels: what counts is how often the first class stays the original's. Photographs that calibrate and those
that judge are different ones (the dataset ``photographs``), so Taylor's rows, which need labels, are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from benchmarks.lite0 import NETWORK, SURE, classes
from benchmarks.proof import torch_pruning_rows
from benchmarks.proof.methods import HEADLINE, OURS, Method, Task, method_of
from benchmarks.proof.originals import Original, digest_of, parameters
from benchmarks.proof.peers import beside, judged
from benchmarks.proof.peers_row import Row
from benchmarks.proof.setting import Section, Setting, Table
from core.datasets import load_dataset
from core.models import load_model
from core.models.zoo import PREPROCESSING
from core.pixels import normalised

SHARES = (0.95, 0.9)
SITES = ("*_expand_conv*",)
"""What is cut: the expansions, as in the bundled space ``lite0-agreement``."""
FEW, MANY = (32, 96), (64, 256)
"""Crops that calibrate and that judge, in the quick run and in the full one."""
PLAIN = "least-squares, obs"
METHODS = (
    method_of(PLAIN, "ours", {"criterion": "obs", "decomposition": "least-squares"}),
    *(m for m in (*OURS, *torch_pruning_rows.ROWS) if not m.name.startswith("Taylor")),
)
ENOUGH = 20
"""Of fewer crops that the original is sure of, percentages would mean nothing."""


@dataclass(frozen=True)
class Agreement:
    """A method's row, and its percentages of the crops that the original was sure of, one for each of `SHARES`."""

    row: Row
    of_sure: tuple[float, ...]


@dataclass(frozen=True)
class Half:
    """Half of the rows.

    Attributes:
        found: of each method.
        params: of the original.
        checksum: of its weights.
        sure: so many crops it was sure of.
    """

    found: Sequence[Agreement]
    params: int
    checksum: str
    sure: int


def section(setting: Setting) -> Section:
    """The section of the page; the quick run leaves the budget out, which refits the whole network for every guess."""
    load_model(NETWORK)  # a missing package says so here
    evens, odds = beside(half, [0, 1], setting)
    found = [one for pair in zip_longest(evens.found, odds.found) for one in pair if one is not None]
    calibrate, judge = MANY if setting.full else FEW
    measured = (
        f"ImageNet weights, {judge} crops of 224x224 to judge by, {calibrate} crops of other photographs to calibrate"
        " with, seed 0"
    )
    return Section(measured, list(text(found, evens)), ["torch-pruning", "efficientnet-lite-pytorch"])


def half(first: int, setting: Setting) -> Half:
    """Every other row, from the first or the second on: a core has one half.

    Raises:
        UsageError: the network's package is missing.
        DataError: there are no photographs.
    """
    torch.set_num_threads(1)
    model, data = load_model(NETWORK).eval(), load_dataset("photographs")
    counts = MANY if setting.full else FEW
    calibration, images = (
        normalised(spread(split.images, count), PREPROCESSING["mean"], PREPROCESSING["std"])
        for split, count in zip((data.train, data.test), counts, strict=True)
    )
    methods = [method for method in METHODS if setting.full or method.name != HEADLINE]
    return compare(
        Original("EfficientNet-Lite0", model, checksum(model)), calibration, images, methods[first::2], SITES
    )


def spread(images: Tensor, count: int) -> Tensor:
    """``count`` of the images (n, …), spread over all of them: crops of a photograph stand one after the other."""
    return images[torch.linspace(0, len(images) - 1, count).long()]


def compare(
    net: Original,
    calibration: Tensor,
    images: Tensor,
    methods: Sequence[Method],
    sites: tuple[str, ...] | None = None,
) -> Half:
    """The rows of ``net`` and images (n, 3, H, W) that calibrate and that judge; ``sites`` are what may be cut."""
    wanted, sure = classes(net.model, images)
    task = Task(net, calibration, torch.zeros(len(calibration), dtype=torch.long), sites=sites)

    def run(method: Method) -> Agreement:
        of_sure = list[float]()

        def judge(network: nn.Module) -> float:
            same = classes(network.eval(), images)[0] == wanted
            of_sure.append(100 * float(same[sure > SURE].float().mean()))
            return 100 * float(same.float().mean())

        return Agreement(judged(method, task, SHARES, judge), tuple(of_sure))

    return Half([run(method) for method in methods], parameters(net.model), net.checksum, int((sure > SURE).sum()))


def checksum(model: nn.Module) -> str:
    """Of its weights, 12 hex digits."""
    return digest_of(model.state_dict())[:12]


def text(found: Sequence[Agreement], of: Half) -> Iterable[str | Table]:
    """Verdicts and the table, with what ``of`` says of the original."""
    enough = of.sure >= ENOUGH
    brackets = f", and in brackets of the {of.sure} crops that it was sure of (over {SURE:g})" if enough else ""
    yield (
        f"{of.params:,} parameters, weights {of.checksum}. Percent of the crops whose first class is the original's"
        f"{brackets}, with at most so many of the parameters left. Rows as above, but only expansions are cut; nothing"
        " is trained, and no label is seen."
    )
    yield "\n".join(f"- {line}" for line in verdicts([one.row for one in found]))
    head = ["method", "whose", *(f"{100 * share:.0f} %" for share in SHARES), "seconds", "peak MB"]
    cells = []
    for row, certain in ((one.row, one.of_sure) for one in found):
        if row.reason:
            cells.append([f"`{row.method}`", row.kind, f"not run: {row.reason}", *[""] * (len(head) - 3)])
            continue
        pairs = zip(row.accuracy, certain, strict=True)
        figures = [f"{a:.1f} ({b:.1f})" if enough else f"{a:.1f}" for a, b in pairs]
        cells.append([f"`{row.method}`", row.kind, *figures, f"{row.seconds:.0f}", f"{row.megabytes:.0f}"])
    yield Table(head, cells)


def verdicts(rows: Sequence[Row]) -> Iterable[str]:
    """Whether ours is ahead, at each share; ours is the budget, or without it the same without a budget."""
    done = {row.method: row for row in rows if not row.reason}
    ours = done.get(HEADLINE) or done.get(PLAIN)
    others = [row for row in done.values() if row.kind != "ours"]
    if ours is None or not others:
        yield "Nothing to compare: one side was not run."
        return
    for i, share in enumerate(SHARES):
        best = max(others, key=lambda row: row.accuracy[i])
        own = max((row for row in done.values() if row.kind == "ours"), key=lambda row: row.accuracy[i])
        apart = ours.accuracy[i] - best.accuracy[i]
        yield (
            f"{100 * share:.0f} % of the parameters: `{ours.method}` ({ours.accuracy[i]:.1f} %) is"
            f" {'ahead of' if apart > 0 else '**not ahead** of'} the best other one, `{best.method}` ({best.kind},"
            f" {best.accuracy[i]:.1f} %), by {apart:.1f} points."
        )
        if own is not ours:
            yield f"Against us: `{own.method}` has {own.accuracy[i]:.1f} % there, more than `{ours.method}`."
    quick = min(others, key=lambda row: row.seconds)
    yield f"Against us: `{ours.method}` takes {ours.seconds:.0f} s of CPU, `{quick.method}` {quick.seconds:.0f} s."
