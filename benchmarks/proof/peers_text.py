"""What a comparison with peers says: verdicts, the table of hypervolumes, a table per network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.proof.methods import HEADLINE
from benchmarks.proof.peers_row import LEFT, Comparison, Row
from benchmarks.proof.setting import Table

NEARLY = 0.95
"""A network with less than so much of the parameters that it might have is a smaller one."""


def text(compared: Sequence[Comparison]) -> Iterable[str | Table]:
    """Verdicts, the table of hypervolumes, and a table per network."""
    yield (
        "Hypervolume is the area under a method's front over the share of the parameters left, so 100 is the most there"
        f" could be; the three networks of a method have at most {', '.join(f'{100 * s:.0f}' for s in LEFT)} % of the"
        " parameters. *Alike*: every set loses the same share; *global*: one threshold on all scores; *re-calibrated*:"
        " batch norms measured anew on the calibration images. No labels are seen but by Taylor, and nothing is"
        " trained."
    )
    yield "\n".join(f"- {line}" for found in compared for line in verdicts(found))
    yield _volumes(compared)
    for found in compared:
        yield (
            f"### {found.net}: {found.accuracy:.2f} %, {found.params:,} parameters, weights {found.checksum}\n\n"
            "Top-1 in percent; seconds of CPU for all of a row's networks, the original followed once."
        )
        yield _table(found)


def verdicts(found: Comparison) -> Iterable[str]:
    """Whether this package is ahead on a network, by how much, and where it is not."""
    done = [row for row in found.rows if not row.reason]
    ours = next(row for row in done if row.method == HEADLINE)
    for kind, others in (
        ("torch-pruning", [row for row in done if row.kind == "torch-pruning"]),
        ("the others written anew here", [row for row in done if row.kind in ("the paper", "written anew")]),
    ):
        if not others:
            yield f"**{found.net}**: nothing to compare with of {kind}: not run."
            continue
        best = max(others, key=lambda row: row.volume)
        apart = ours.volume - best.volume
        which = "ahead" if apart > 0 else "**not ahead**"
        yield (
            f"**{found.net}**: `{HEADLINE}` is {which} of the best of {kind}, `{best.method}`, by {apart:.1f}"
            f" ({ours.volume:.1f} to {best.volume:.1f})."
        )
    quick = min((row for row in done if row.kind != "ours"), key=lambda row: row.seconds)
    cost, theirs = (f"{row.seconds:.1f} s of CPU and {_figure(row.megabytes, 0)} MB" for row in (ours, quick))
    yield f"**{found.net}**, against us: `{HEADLINE}` takes {cost}, `{quick.method}` ({quick.kind}) {theirs}."
    for row in done:
        if row.kind == "ours" and row.volume > ours.volume:
            yield (
                f"**{found.net}**: `{row.method}`, all sets alike, has more hypervolume than the budget,"
                f" {row.volume:.1f} to {ours.volume:.1f}."
            )
    yield from _smaller(found.net, done)
    for i, share in enumerate(LEFT):
        best = max((row for row in done if row.kind != "ours"), key=lambda row: row.accuracy[i])
        if best.accuracy[i] >= ours.accuracy[i]:
            yield (
                f"**{found.net}**, against us: at {100 * share:.0f} % of the parameters `{best.method}` ({best.kind})"
                f" has {best.accuracy[i]:.2f} %, `{HEADLINE}` {ours.accuracy[i]:.2f} %."
            )


def _smaller(net: str, done: Sequence[Row]) -> Iterable[str]:
    """Rows whose networks are really smaller than they might be."""
    sizes: dict[tuple[float, ...], list[str]] = {}
    for row in done:
        if any(left < NEARLY * share for left, share in zip(row.left, LEFT, strict=True)):
            sizes.setdefault(row.left, []).append(f"`{row.method}`")
    for left, names in sizes.items():
        real = ", ".join(f"{100 * value:.1f}" for value in left)
        rows = ", ".join(names[:2]) + (f" and {len(names) - 2} more rows" if len(names) > 2 else "")
        yield (
            f"**{net}**, to be fair: {rows} really have {real} % of the parameters, for want of widths in between. The"
            " hypervolume counts that, the columns do not."
        )


def _volumes(compared: Sequence[Comparison]) -> Table:
    named: dict[str, dict[str, Row]] = {}
    for found in sorted(compared, key=lambda found: -len(found.rows)):  # one with all methods gives their order
        for row in found.rows:
            named.setdefault(row.method, {})[found.net] = row
    rows = []
    for name, of in named.items():
        cells = [_volume(of.get(found.net)) for found in compared]
        rows.append([f"`{name}`", next(iter(of.values())).kind, *cells])
    return Table(["hypervolume", "whose", *(found.net for found in compared)], rows)


def _table(found: Comparison) -> Table:
    head = ["method", "whose", *(f"{100 * share:.0f} %" for share in LEFT), "seconds", "peak MB"]
    rows = []
    for row in found.rows:
        if row.reason:
            rows.append([f"`{row.method}`", row.kind, f"not run: {row.reason}", *[""] * (len(head) - 3)])
            continue
        accuracy = [f"{value:.2f}" for value in row.accuracy]
        rows.append([f"`{row.method}`", row.kind, *accuracy, f"{row.seconds:.1f}", _figure(row.megabytes, 0)])
    return Table(head, rows)


def _figure(value: float, places: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def _volume(row: Row | None) -> str:
    if row is None:
        return "–"
    return "not run" if row.reason else f"{row.volume:.1f}"
