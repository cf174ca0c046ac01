"""Peers on a network as people have it: EfficientNet-Lite0 with its ImageNet weights, on crops of photographs.

There are no labels: what counts is how often the first class stays the original's. Photographs that calibrate and those
that judge are different ones (the dataset ``photographs``), so Taylor's rows, which need labels, are not here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.lite0 import NETWORK, SURE, classes
from benchmarks.proof import torch_pruning_rows
from benchmarks.proof.methods import HEADLINE, OURS, Method, Task
from benchmarks.proof.originals import Original, parameters
from benchmarks.proof.peers import judged
from benchmarks.proof.peers_row import Row
from benchmarks.proof.setting import Section, Setting, Table
from core.datasets import load_dataset
from core.models import load_model
from core.models.zoo import PREPROCESSING
from core.pixels import normalised

SHARES = (0.9, 0.8)
CALIBRATE, JUDGE = 32, 128
METHODS = tuple(m for m in (*OURS, *torch_pruning_rows.ROWS) if not m.name.startswith("Taylor"))


def section(setting: Setting) -> Section:
    """The section of the page."""
    model = load_model(NETWORK).eval()  # a missing package says so here
    data = load_dataset("photographs")
    calibration, images = (
        normalised(split.images[:count], PREPROCESSING["mean"], PREPROCESSING["std"])
        for split, count in ((data.train, CALIBRATE), (data.test, JUDGE))
    )
    compared = compare(Original("EfficientNet-Lite0", model, checksum(model)), calibration, images)
    measured = (
        f"ImageNet weights, {len(images)} crops of 224x224 to judge by, {len(calibration)} crops of other photographs"
        " to calibrate with, seed 0"
    )
    return Section(measured, list(compared), ["torch-pruning", "efficientnet-lite-pytorch"])


def compare(
    net: Original, calibration: Tensor, images: Tensor, methods: Sequence[Method] = METHODS
) -> Iterable[str | Table]:
    """What it comes to, and the table, of ``net`` and images (n, 3, H, W) that calibrate and that judge."""
    wanted, sure = classes(net.model, images)
    of_sure = dict[int, list[float]]()

    def run(number: int, method: Method) -> Row:
        def judge(network: nn.Module) -> float:
            same = classes(network.eval(), images)[0] == wanted
            of_sure.setdefault(number, []).append(100 * float(same[sure > SURE].float().mean()))
            return 100 * float(same.float().mean())

        return judged(method, task, SHARES, judge)

    task = Task(net, calibration, torch.zeros(len(calibration), dtype=torch.long))
    rows = [run(number, method) for number, method in enumerate(methods)]
    return text(net, rows, [of_sure.get(number, []) for number in range(len(rows))], int((sure > SURE).sum()))


def checksum(model: nn.Module) -> str:
    """Of its weights, 12 hex digits."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        found.update(name.encode() + weight.contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def text(net: Original, rows: Sequence[Row], of_sure: Sequence[Sequence[float]], sure: int) -> Iterable[str | Table]:
    """Verdicts and the table; ``of_sure`` are a row's percentages of the crops that the original was sure of."""
    yield (
        f"{parameters(net.model):,} parameters, weights {net.checksum}. Percent of the crops whose first class is the"
        f" original's, and in brackets of the {sure} crops that it was sure of (over {SURE:g}). Rows as above; nothing"
        " is trained, and no label is seen."
    )
    yield "\n".join(f"- {line}" for line in verdicts(rows))
    head = ["method", "whose", *(f"{100 * share:.0f} %" for share in SHARES), "seconds", "peak MB"]
    cells = []
    for row, certain in zip(rows, of_sure, strict=True):
        if row.reason:
            cells.append([f"`{row.method}`", row.kind, f"not run: {row.reason}", *[""] * (len(head) - 3)])
            continue
        figures = [f"{a:.1f} ({b:.1f})" for a, b in zip(row.accuracy, certain, strict=True)]
        cells.append([f"`{row.method}`", row.kind, *figures, f"{row.seconds:.0f}", f"{row.megabytes:.0f}"])
    yield Table(head, cells)


def verdicts(rows: Sequence[Row]) -> Iterable[str]:
    """Whether ours is ahead, at each share."""
    done = [row for row in rows if not row.reason]
    ours = next((row for row in done if row.method == HEADLINE), None)
    others = [row for row in done if row.kind != "ours"]
    if ours is None or not others:
        yield "Nothing to compare: one side was not run."
        return
    for i, share in enumerate(SHARES):
        best, own = (
            max(some, key=lambda row: row.accuracy[i]) for some in (others, [r for r in done if r not in others])
        )
        apart = ours.accuracy[i] - best.accuracy[i]
        yield (
            f"{100 * share:.0f} % of the parameters: `{HEADLINE}` ({ours.accuracy[i]:.1f} %) is"
            f" {'ahead of' if apart > 0 else '**not ahead** of'} the best other one, `{best.method}` ({best.kind},"
            f" {best.accuracy[i]:.1f} %), by {apart:.1f} points."
        )
        if own is not ours:
            yield f"Against us: `{own.method}`, all sets alike, has {own.accuracy[i]:.1f} % there."
    quick = min(others, key=lambda row: row.seconds)
    yield f"Against us: `{HEADLINE}` takes {ours.seconds:.0f} s of CPU, `{quick.method}` {quick.seconds:.0f} s."
