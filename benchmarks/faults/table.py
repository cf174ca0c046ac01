"""The table of faults in docs/reliability.md: a row for each fault, replaced whenever it was run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.counts import Result

HEAD = "| fault | how it is injected | repetitions | trials | recorded | MLflow runs | twice | lost | same front |"


def write_row(path: Path | None, title: str, how: str, results: Sequence[Result]) -> str:
    """The row of a fault, put into the table of ``path`` in place of its old one, or at the table's end."""
    row = row_of(title, how, results)
    if path is not None:
        lines = path.read_text().splitlines()
        rows = rows_of(lines)
        same = [number for number in rows if lines[number].startswith(f"| {title} |")]
        lines[slice(same[0], same[0] + 1) if same else slice(rows.stop, rows.stop)] = [row]
        path.write_text("\n".join(lines) + "\n")
    return row


def rows_of(lines: Sequence[str]) -> range:
    """Where the table's rows are, without its head."""
    start = lines.index(HEAD) + 2
    return range(start, next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines)))


def row_of(title: str, how: str, results: Sequence[Result]) -> str:
    """The row of a fault; numbers of trials are sums over all repetitions."""
    sums: list[int | str] = [
        len(results),
        sum(result.expected for result in results),
        sum(result.distinct for result in results),
        sum(result.distinct_runs for result in results),
        sum(result.duplicates for result in results),
        sum(result.lost for result in results),
        f"{sum(result.same_front for result in results)}/{len(results)}",
    ]
    return f"| {title} | {how} | {' | '.join(f'{value:,}' if isinstance(value, int) else value for value in sums)} |"
