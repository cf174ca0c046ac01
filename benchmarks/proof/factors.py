"""Reviewer 3: non-negative factorisations approximate the weights better than merging, and the network worse. Why?

Merging writes W ≈ Z·Y with Y the rows that stay, and puts Z behind the activation, φ(Wx) ≈ Z·φ(Yx). Two errors add up:
Wx − ZYx, which a factorisation makes small, and φ(ZYx) − Zφ(Yx), which is zero where a row of Z has one positive entry.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.proof.originals import original
from benchmarks.proof.paper import checkpoint
from benchmarks.proof.setting import CALIBRATION, NotRunError, Section, Setting, Table
from core.compress import Prepared, compress, prepare
from core.config import make_options
from core.decompositions.base import Merge, plain
from core.measure import accuracy_and_loss

NET = "LeNet-300-100"
RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)
SHOWN = 0.8
MERGED = "most-similar, t = 0.45"
FORMS: dict[str, tuple[str, dict[str, object]]] = {
    "none": ("none", {}),
    MERGED: ("most-similar", {"threshold": 0.45}),
    "nmf, fixed, dense": ("nmf", {}),
    "nmf, fixed, hard": ("nmf", {"hard": True}),
    "nmf, free, dense, 50 updates": ("nmf", {"rows": "free"}),
    "nmf, free, dense, 500 updates": ("nmf", {"rows": "free", "iterations": 500}),
    "nmf, free, hard": ("nmf", {"rows": "free", "hard": True}),
}
WHY = (
    "A factorisation W ≈ ZY is put behind the activation: φ(Wx) ≈ Zφ(Yx). So two errors add up, that of Wx ≈ ZYx,"
    " which a factorisation makes small, and that of φ(ZYx) ≈ Zφ(Yx): a removed neuron is a sum of others, and"
    " φ(Σ z·y) is Σ z·φ(y) only where all of them are positive at once. With one positive entry in a row of Z it always"
    " is, which is the condition of the paper's theorem; else Zφ(Yx) is too large in every neuron at once, never too"
    " small, and nothing cancels: the *surplus*, as a share of Σφ(Wx). The rank correlation of the accuracy with each"
    " error, over the forms, mean of the ratios (an error that tells the accuracy has −1):"
)
PICTURE = "proof-factors.png"


@dataclass(frozen=True)
class Point:
    """A form at a ratio; errors are shares of the squared norm, mean over the sets.

    Attributes:
        form: its name.
        ratio: of every set removed.
        weights: ‖W − ZY‖² / ‖W‖².
        linear: ‖Wx − ZYx‖² / ‖Wx‖² on the calibration images.
        activations: ‖φ(Wx) − Zφ(Yx)‖² / ‖φ(Wx)‖² there.
        surplus: (ΣZφ(Yx) − Σφ(ZYx)) / Σφ(Wx): what taking Z behind the activation adds, never less than nothing.
        entries: per removed channel, how many entries of its row are above a hundredth of the largest.
        accuracy: percent.
    """

    form: str
    ratio: float
    weights: float
    linear: float
    activations: float
    surplus: float
    entries: float
    accuracy: float


def section(setting: Setting) -> Section:
    """The section of the page; LeNet is small, so it is the same in both commands."""
    here = original(NET, setting)
    nets = {f"{NET} as trained here (weights {here.checksum})": here.model}
    missing = ""
    try:
        nets = {f"{NET}, the paper's checkpoint": checkpoint(), **nets}
    except NotRunError as error:
        missing = f"Not run on the paper's network: {error}."
    found = {name: measured(net, setting) for name, net in nets.items()}
    draw(found, setting)
    return Section(
        f"criterion `l1`, all test images, errors on {CALIBRATION} training images (seed 0)",
        [*filter(None, [missing]), *text(found)],
    )


def measured(net: nn.Module, setting: Setting) -> list[Point]:
    """Every form at every ratio."""
    images, labels = setting.dataset.inputs("test")
    calibration, _ = setting.calibration()
    prepared = prepare(net, images[:1])
    inputs = preactivations(net, calibration)
    points = []
    for ratio in RATIOS:
        for form, (name, options) in FORMS.items():
            cut = compress(prepared, images[:1], ratio=ratio, decomposition=name, options=options)
            kept = {site.name: torch.tensor(site.kept) for site in cut.sites}
            errors = [of_set(prepared, s, kept[s], inputs[s], name, options) for s in kept]
            weights, linear, behind, surplus, entries = map(statistics.fmean, zip(*errors, strict=True))
            accuracy = accuracy_and_loss(cut.model, images, labels)[0]
            points.append(Point(form, ratio, weights, linear, behind, surplus, entries, accuracy))
    return points


def preactivations(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each linear layer gives (N, out), float64, by its name."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out.double()}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def of_set(
    prepared: Prepared, name: str, kept: Tensor, y: Tensor, method: str, options: Mapping[str, object]
) -> tuple[float, ...]:
    """What a `Point` says of one set, from ``weights`` to ``entries``.

    Args:
        prepared: the network.
        name: of the set.
        kept: indices (k,) of its channels that stay.
        y: what they give on images, (N, n).
        method: a decomposition.
        options: its own.
    """
    chosen = next(s for s in prepared.channels.sets if s.name == name)
    signature = next(iter(prepared.signatures(chosen, covariances=False).values()))
    merge: Merge = make_options(method, dict(options)).merge(signature, kept)
    gram = signature.folded().gram
    rows = plain(len(gram), kept).z.T if merge.rows is None else merge.rows
    apart = torch.eye(len(gram), dtype=gram.dtype) - merge.z @ rows
    weights = float((apart @ gram * apart).sum() / gram.trace())
    through = y @ rows.T
    linear = float((y - through @ merge.z.T).square().sum() / y.square().sum())
    h = y.relu()
    activations = float((h - through.relu() @ merge.z.T).square().sum() / h.square().sum())
    gone = torch.ones(len(gram), dtype=torch.bool)
    gone[kept] = False
    z = merge.z[gone]
    entries = float((z > 0.01 * z.amax(1, keepdim=True)).logical_and(z > 0).sum(1).double().mean())
    surplus = float((through.relu() @ merge.z.T - (through @ merge.z.T).relu()).sum() / h.sum())
    return weights, linear, activations, surplus, entries


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's."""
    ranks = [torch.tensor(v, dtype=torch.float64).argsort().argsort().double() for v in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def correlation(points: Sequence[Point], error: str) -> float:
    """Of an error with the accuracy, over the forms; mean of the ratios."""
    alike = [[point for point in points if point.ratio == ratio] for ratio in RATIOS]
    return statistics.fmean(rank_correlation([getattr(p, error) for p in a], [p.accuracy for p in a]) for a in alike)


def text(found: Mapping[str, Sequence[Point]]) -> list[str | Table]:
    """What the errors say, for each network the finding and the table, and the picture."""
    names = {"weights": "of the weights W", "linear": "of Wx", "activations": "of φ(Wx)"}
    lines = [
        f"- {net}: " + ", ".join(f"{name} {correlation(points, what):+.2f}" for what, name in names.items())
        for net, points in found.items()
    ]
    parts: list[str | Table] = [WHY, "\n".join(lines)]
    for net, points in found.items():
        shown = {point.form: point for point in points if point.ratio == SHOWN}
        parts += [f"### {net}", finding(shown), table(list(shown.values()))]
    return [*parts, f"![Accuracy against the error of W, and against that of φ(Wx)]({PICTURE})"]


def finding(shown: Mapping[str, Point]) -> str:
    """What became of the dense and of the hard factors against merging."""
    merged, dense, free = (shown[form] for form in (MERGED, "nmf, fixed, dense", "nmf, free, hard"))
    nearer = f"it misses {100 * dense.weights:.0f} % of them, merging {100 * merged.weights:.0f} %"
    lost = "and the worse network" if dense.accuracy < merged.accuracy else "and here the better network"
    hard = "better" if free.accuracy > merged.accuracy else "worse"
    worst = max(shown.values(), key=lambda point: point.activations)
    return (
        f"Removing {100 * SHOWN:.0f} %: non-negative least squares is nearer to the weights ({nearer}) {lost},"
        f" {dense.accuracy:.2f} % to {merged.accuracy:.2f} %. `{worst.form}` is nearer still"
        f" ({100 * worst.weights:.0f} %) and has {worst.accuracy:.2f} %: behind the activation it gives"
        f" {1 + worst.surplus:.0f} times as much as it should, least squares {1 + dense.surplus:.1f} times, and one"
        f" entry a row no more than it should. Free rows with one entry (`hard`), a clustering of neurons, are {hard}"
        f" than the paper's merging: {free.accuracy:.2f} %."
    )


def table(points: Sequence[Point]) -> Table:
    """All forms at one ratio."""
    rows = [
        [
            f"`{p.form}`",
            *(f"{100 * error:.1f}" for error in (p.weights, p.linear, p.activations, p.surplus)),
            f"{p.entries:.1f}",
            f"{p.accuracy:.2f}",
        ]
        for p in points
    ]
    head = [
        f"{100 * SHOWN:.0f} % removed",
        "error of W, %",
        "of Wx, %",
        "of φ(Wx), %",
        "surplus, %",
        "entries a row",
        "accuracy",
    ]
    return Table(head, rows)


def draw(found: Mapping[str, Sequence[Point]], setting: Setting) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    from dashboards.palette import COLOURS

    figure = Figure(figsize=(9, 3.6 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 2, sharey=True, squeeze=False)
    for (net, points), row in zip(found.items(), grid, strict=True):
        for axes, what in zip(row, ("weights", "activations"), strict=True):
            for form, colour, marker in zip(FORMS, COLOURS, "osD^v<>", strict=False):
                own = [point for point in points if point.form == form]
                x, y = [100 * getattr(p, what) for p in own], [p.accuracy for p in own]
                axes.plot(x, y, marker=marker, color=colour, linewidth=0.8, markersize=5, label=form)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set(title=net.partition(" (")[0], xlabel="error of W, %", ylabel="accuracy, %")
        row[1].set(title="behind the activation", xlabel="error of φ(Wx), %", xscale="log")
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=4
    )
    figure.savefig(setting.pictures / PICTURE, dpi=100)
