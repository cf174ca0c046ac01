"""The paper's LeNet table, for every criterion and ratio, on the checkpoint that its authors published."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting, Table
from core.compress import compress, prepare
from core.criteria import CRITERIA
from core.measure import accuracy_and_loss
from core.models import load_model

PLACE = "NMS_REFERENCE"
WHICH = "lenet-300-100/fashion-mnist"
ALIKE = {"bn-scale": "l1"}
"""Criterion -> the one that it is where there is no batch norm."""
Evaluate = Callable[..., float]


def reference() -> Path:
    """The folder with the paper's checkpoint and tables.

    Raises:
        NotRunError: it is not here.
    """
    beside = Path(__file__).parents[3] / "shared" / "reference"
    folder = Path(os.environ.get(PLACE, beside))
    if not (folder / "paper_tables.json").is_file():
        raise NotRunError(f"the paper's checkpoint and tables are not here; {PLACE} names their folder")
    return folder


def checkpoint() -> nn.Module:
    """The paper's LeNet.

    Raises:
        NotRunError: it is not here.
    """
    folder = reference()
    return load_model("lenet-300-100", folder / tables(folder)["checkpoint"])


def tables(folder: Path) -> dict[str, Any]:
    """The paper's figures."""
    found: dict[str, Any] = json.loads((folder / "paper_tables.json").read_text())[WHICH]
    return found


def section(setting: Setting) -> Section:
    """The section of the page; it takes a minute, so it is the same in both commands."""
    net, published = checkpoint(), tables(reference())
    images, labels = setting.dataset.inputs("test")
    calibration, classes = setting.calibration()
    prepared = prepare(net, images[:1])
    methods: dict[str, dict[str, Any]] = {
        "none": {"decomposition": "none"},
        "most-similar": {"decomposition": "most-similar", "options": {"threshold": published["threshold"]}},
        "least-squares": {"decomposition": "least-squares"},
    }

    def accuracy(criterion: str, method: str, ratio: float) -> float:
        how = {"criterion": criterion, "ratio": ratio, **methods[method]}
        cut = compress(prepared, images[:1], calibration=calibration, labels=classes, **how)
        return round(accuracy_and_loss(cut.model, images, labels)[0], 2)

    before = round(accuracy_and_loss(net, images, labels)[0], 2)
    measured = (
        f"all {len(labels):,} test images, {CALIBRATION} training images (seed 0), threshold {published['threshold']}"
    )
    parts: list[str | Table] = [
        f"The network before: {before:.2f} %, in the paper {published['baseline_accuracy']:.2f} %.",
        _beside(published, accuracy),
        "Every criterion; `taylor` and `snip` see the calibration images' labels, `bn-scale` is `l1` where there is"
        " no batch norm; the paper has the norms `l1`, `l2` and `geometric-median`. The best of a ratio is bold:",
        _all(methods, [row["ratio"] for row in published["rows"]], accuracy),
        "The paper's networks on CIFAR-10 have a section of their own.",
    ]
    return Section(measured, parts)


def _beside(published: dict[str, Any], accuracy: Evaluate) -> Table:
    rows, worst = [], 0.0
    for row in published["rows"]:
        found = [accuracy(published["criterion"], method, row["ratio"]) for method in ("none", "most-similar")]
        worst = max(worst, *(abs(f - row[k]) for f, k in zip(found, ("prune", "merge"), strict=True)))
        theirs = [row["prune"], row["merge"]]
        cells = [f"{value:.2f}" for pair in zip(theirs, found, strict=True) for value in pair]
        rows.append([f"{100 * row['ratio']:.0f} %", *cells])
    merging = f"merging, here (off by {worst:.2f} at most)"
    head = ["`l1`, removed", "pruning, paper", "pruning, here", "merging, paper", merging]
    return Table(head, rows)


def _all(methods: dict[str, Any], ratios: list[float], accuracy: Evaluate) -> Table:
    names = [name for name in CRITERIA.names() if name not in ALIKE]
    found = {(c, m): [accuracy(c, m, ratio) for ratio in ratios] for c in names for m in methods}
    best = [max(values[i] for values in found.values()) for i in range(len(ratios))]
    rows = []
    for (criterion, method), values in found.items():
        cells = [f"**{v:.2f}**" if v == top else f"{v:.2f}" for v, top in zip(values, best, strict=True)]
        rows.append([f"`{criterion}`", f"`{method}`", *cells])
    return Table(["criterion", "", *(f"{100 * ratio:.0f} %" for ratio in ratios)], rows)
