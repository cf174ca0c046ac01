"""What curves of accuracy over epochs come to: sentences, a table, a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.proof.setting import Setting, Table
from benchmarks.proof.starts import BEST, MERGED, PRUNED, SCRATCH, SNIP, TICKET
from core.models import Recipe

FINE = Recipe(epochs=5, batch_size=128, lr=0.02, weight_decay=5e-4, augment=False)
LONGER = ", as long as the original and this"
LOOKS = (0, 1, 2, 3, 5)
PICTURE = "proof-training.png"
Curves = Mapping[str, Sequence[Sequence[float]]]
"""Name -> of each seed the accuracy (percent) after 0, 1, … epochs."""


def at(curves: Curves, name: str, epoch: int) -> list[float]:
    """Accuracies of the seeds after some epochs; of a long training at its end."""
    return [curve[-1] if name.endswith(LONGER) else curve[epoch] for curve in curves[name]]


def table(curves: Curves) -> Table:
    """Accuracy after some epochs."""
    rows = []
    for name in curves:
        cells = []
        for epoch in LOOKS:
            if name.endswith(LONGER) and epoch < LOOKS[-1]:
                cells.append("")
                continue
            values = at(curves, name, epoch)
            cells.append(f"{statistics.fmean(values):.2f} ({min(values):.2f}–{max(values):.2f})")
        rows.append([name, *cells])
    return Table(["", *(f"{epoch} epochs" for epoch in LOOKS)], rows)


def apart(curves: Curves, one: str, other: str, epoch: int) -> str:
    """How far the means of the seeds are apart, points; whether all of one's seeds are on one side of the other's."""
    mine, theirs = at(curves, one, epoch), at(curves, other, epoch)
    clear = min(mine) > max(theirs) or max(mine) < min(theirs)
    difference = statistics.fmean(mine) - statistics.fmean(theirs)
    return f"{difference:+.2f}{'' if clear else ' (within the seeds)'}"


def said(curves: Curves) -> str:
    """By how much merging, and the best of ours, are ahead of pruning and of networks that were never large."""

    def over(one: str, other: str) -> str:
        return ", ".join(f"{apart(curves, one, other, epoch)} after {epoch}" for epoch in LOOKS)

    def lead(name: str) -> str:
        left = next((epoch for epoch in LOOKS if min(at(curves, name, epoch)) <= max(at(curves, PRUNED, epoch))), None)
        return "stays" if left is None else "is none" if left == 0 else f"is gone after {left} epoch{'s' * (left > 1)}"

    def small(name: str) -> str:
        same, long = (apart(curves, BEST, other, LOOKS[-1]) for other in (name, name + LONGER))
        return f"{name} {same}, and {long} where that is trained as long as the original and this"

    smaller = "; over ".join(small(name) for name in (SCRATCH, TICKET, SNIP))
    return (
        f"**The lead of merging over pruning {lead(MERGED)} of training with labels, that of `{BEST}` {lead(BEST)}.**"
        f" Points of merging over pruning: {over(MERGED, PRUNED)} epochs. Of `{BEST}` over pruning:"
        f" {over(BEST, PRUNED)}. Of `{BEST}`, at the end, over {smaller}. What is within the seeds is no difference,"
        " and what is negative speaks against us."
    )


def draw(found: Mapping[str, Curves], setting: Setting) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    from dashboards.palette import COLOURS

    figure = Figure(figsize=(7 * len(found), 4.5), layout="constrained")
    grid = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (net, curves) in zip(grid, found.items(), strict=True):
        colours = dict(zip([name for name in curves if not name.endswith(LONGER)], COLOURS, strict=False))
        for name, seeds in curves.items():
            colour = colours[name.removesuffix(LONGER)]
            if name.endswith(LONGER):
                axes.axhline(statistics.fmean(at(curves, name, 0)), color=colour, linestyle=":")
                continue
            columns = list(zip(*seeds, strict=True))
            x = range(len(columns))
            axes.plot(x, [statistics.fmean(c) for c in columns], marker="o", markersize=4, color=colour, label=name)
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot([], [], color="grey", linestyle=":", label="the end of what is trained longer")
        first = min(curve[1] for seeds in curves.values() for curve in seeds)
        axes.set(title=net, xlabel="epochs with labels", ylabel="accuracy, %", ylim=(min(first, 80) - 2, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(setting.pictures / PICTURE, dpi=100)
