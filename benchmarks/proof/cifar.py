"""The paper's networks on CIFAR, end to end: each bundled space as a sweep, and the paper's table where it can be had.

With CIFAR-10 and a folder of weights this is the paper's table. Without CIFAR the same spaces run on images made on
the spot, of its shape and with its constants, on networks trained for a few seconds: the path is the same, and the
figures mean nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._sweeps import run_sweep
from benchmarks.proof.paper import reference
from benchmarks.proof.setting import NotRunError, Section, Setting, Table
from core.datasets import ImageDataset, load_dataset
from core.datasets.base import Split
from core.datasets.cifar import MEAN, STD
from core.errors import DataError
from core.records import TrialRecord

REAL, MADE = "cifar10", "benchmarks.proof.cifar:made"
PICKED = ('bn_scale=["published", "exact"]',)
SPACES: Mapping[str, tuple[str, ...]] = {
    "vgg16-cifar10": ('allocation=["per-site"]', "threshold=[0.1]"),
    "resnet56-cifar10": ("ratio=[0.5]", 'criterion=["l1"]'),
    "wrn-40-4-cifar10": ("ratio=[0.5]", 'criterion=["l1"]'),
}
"""Space -> the part of it that is run."""
COLUMNS = {
    "pruned": ("none", None),
    "merged, the paper's terms": ("most-similar", "published"),
    "merged": ("most-similar", "exact"),
    "least-squares": ("least-squares", None),
}
QUICK = ("baseline.epochs=2", "baseline.batch_size=32", "baseline.lr=0.02", "baseline.augment=false")
PAPER = "vgg16/cifar10"


def made() -> ImageDataset:
    """Images of CIFAR's shape: a pattern for each of ten classes, under noise; always the same ones."""
    rng = torch.Generator().manual_seed(0)
    patterns = torch.rand(10, 3, 8, 8, generator=rng).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 10
        images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, 3, 32, 32, generator=rng)
        return Split((255 * images).to(torch.uint8), labels)

    return ImageDataset("made on the spot", split(320), split(100), split(100), MEAN, STD, tuple("0123456789"))


def section(setting: Setting) -> Section:
    """The section of the page."""
    try:
        load_dataset(REAL)
        real = True
    except DataError as error:
        real, why = False, str(error).replace("<", "").replace(">", "")  # no tags of HTML
    weights = {space: _weights(space) if real else None for space in SPACES}
    if real and not setting.full and not all(weights.values()):
        raise NotRunError("CIFAR-10 is here, but not the networks' weights: `make proof-full` trains them, for hours")
    with tempfile.TemporaryDirectory(prefix="proof-cifar-") as folder:
        found = {space: run_sweep(Path(folder), *words(space, weights[space], real=real))[0] for space in SPACES}
    parts: list[str | Table] = [
        "Top-1 in percent of the paper's VGG-16 at the paper's widths, and of ResNet-56 and WRN-40-4 with half of the"
        " first convolution of each block removed; each line is trials of a sweep of the bundled space.",
        Table(["space", "criterion", "parameters left", *COLUMNS, "trials"], rows(found)),
        _beside(found["vgg16-cifar10"], real=real),
    ]
    if not real:
        parts.insert(
            0,
            "**CIFAR-10 is not here, and these figures mean nothing but that the path runs**: images made on the spot"
            " in CIFAR's shape, 320 to train with and 100 to test, networks trained for two epochs of them. With the"
            f" data and the weights the same command fills the paper's table. Not run on CIFAR-10: {why}.",
        )
    return Section("three sweeps, seed 0" + ("" if real else ", made images"), parts, ["ray"])


def words(space: str, weights: Path | None, *, real: bool) -> list[str]:
    """A space's sweep on the command line."""
    changes = [*PICKED, *SPACES[space], f"baseline.dataset={REAL if real else MADE}"]
    changes += [f"baseline.checkpoint={weights}"] if weights else [] if real else QUICK
    return [space, "--search", "grid", "--workers", "2", *(w for change in changes for w in ("--set", change))]


def _weights(space: str) -> Path | None:
    """A space's weights in the folder of the paper's checkpoint, if they are there."""
    try:
        path = reference() / f"{space.replace('-', '_')}.safetensors"
    except NotRunError:
        return None
    return path if path.is_file() else None


def accuracy(records: Sequence[TrialRecord], criterion: str, how: tuple[str, str | None]) -> float | None:
    """Of the trial with a criterion and a decomposition, if it finished."""
    decomposition, terms = how
    for record in records:
        same = (record.criterion, record.decomposition) == (criterion, decomposition)
        if same and record.status == "finished" and terms in (None, record.options.get("bn_scale")):
            return record.metrics["accuracy"]
    return None


def rows(found: Mapping[str, Sequence[TrialRecord]]) -> list[list[str]]:
    """A line for each space and criterion."""
    cells = []
    for space, records in found.items():
        for criterion in dict.fromkeys(record.criterion for record in records):
            own = [record for record in records if record.criterion == criterion]
            done = [record for record in own if record.status == "finished"]
            left = f"{100 * done[0].metrics['params_fraction']:.1f} %" if done else "–"
            figures = [accuracy(own, criterion, how) for how in COLUMNS.values()]
            shown = ["–" if value is None else f"{value:.2f}" for value in figures]
            cells.append([f"`{space}`", f"`{criterion}`", left, *shown, f"{len(done)} of {len(own)} finished"])
    return cells


def _beside(records: Sequence[TrialRecord], *, real: bool) -> str | Table:
    """The paper's table beside ours."""
    try:
        published: dict[str, Any] = json.loads((reference() / "paper_tables.json").read_text())[PAPER]
    except NotRunError as error:
        return f"Not beside the paper's figures: {error}."
    lines = []
    for row in published["rows"]:
        own = [accuracy(records, row["criterion"], COLUMNS[name]) for name in list(COLUMNS)[:2]]
        theirs = [row["prune"], row["merge"]]
        pairs = zip(theirs, own, strict=True)
        cells = [cell for a, b in pairs for cell in (f"{a:.2f}", f"{b:.2f}" if real and b is not None else "no CIFAR")]
        lines.append([f"`{row['criterion']}`", *cells])
    return Table(["VGG-16", "pruning, paper", "pruning, here", "merging, paper", "merging, here"], lines)
