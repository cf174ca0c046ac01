"""All sweeps in the results folder in the order of their starting, a line each."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from typing import Any

from sweep.arguments import Parser
from sweep.text import columns

EXAMPLE = "sweep list"
DAMAGED = "damaged"
"""Status of a sweep that cannot be read."""
DISPENSABLE = ("hypervolume", "space", "started")
"""Columns that a narrow terminal does without, in this order."""
COLUMNS = ("name", "status", "trials", "best", "hypervolume", "started", "space")


def add_arguments(parser: Parser) -> None:
    """Where they lie."""
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the list; a sweep that cannot be read is shown as damaged, with the reason below."""
    from core.errors import NeuronMergingError
    from sweep.storage.address import place
    from sweep.storage.reader import read_sweep, sweep_names

    rows: list[dict[str, Any]] = []
    for name in sweep_names(options.results):
        try:
            rows.append(row(read_sweep(options.results, name)))
        except NeuronMergingError as error:
            rows.append({"name": name, "status": DAMAGED, "message": str(error)})
    rows.sort(key=lambda row: row.get("started_at", 0.0))
    if options.json:
        print(json.dumps([{n: v for n, v in row.items() if n != "shown"} for row in rows], indent=2))
        return 0
    if not rows:
        print(f"no sweep in {options.results}; start one with 'sweep run digits-quick{place(options.results)}'")
        return 0
    print("\n".join([*table(rows, columns(sys.stdout)), *(row["message"] for row in rows if row["status"] == DAMAGED)]))
    return 0


def row(sweep: Any) -> dict[str, Any]:
    """One sweep as data."""
    info, score = sweep.info, sweep.scored.score
    found = [record.metrics[score.name] for record in sweep.records if record.status == "finished"]
    best = min(found, key=score.loss, default=None)
    return {
        "name": info.name,
        "status": info.status,
        "message": info.state.message,
        "trials": len(sweep.records),
        "total": info.state.total,
        "best": best,
        "score": score.name,
        "shown": "" if best is None else sweep.scored.show({score.name: best}),
        "hypervolume": round(sweep.hypervolume, 3),
        "started_at": info.state.started_at,
        "space": info.request.space,
    }


def training(values: dict[str, Any]) -> bool:
    """Whether the sweep is training its original network now."""
    from sweep.storage.info import TRAINING

    return bool(values["status"] == "running" and values["message"].startswith(TRAINING))


def table(rows: list[dict[str, Any]], width: int | None = None) -> list[str]:
    """The list for people; with a ``width`` the least needed columns are left out until it fits, if it can."""
    texts = [dict(zip(COLUMNS, COLUMNS, strict=True))]
    for values in rows:
        if values["status"] == DAMAGED:
            texts.append({**dict.fromkeys(COLUMNS, ""), "name": values["name"], "status": DAMAGED})
            continue
        texts.append(
            {
                **{name: str(values[name]) for name in ("name", "space")},
                "status": "training" if training(values) else values["status"],
                "trials": f"{values['trials']}/{values['total']}",
                "best": values["shown"],
                "hypervolume": f"{values['hypervolume']:.2f}",
                "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(values["started_at"])),
            }
        )
    widths = {name: max(len(text[name]) for text in texts) for name in COLUMNS}
    shown = list(COLUMNS)
    for name in DISPENSABLE:
        if width is not None and sum(widths[name] + 2 for name in shown) - 2 > width:
            shown.remove(name)
    return ["  ".join(text[name].ljust(widths[name]) for name in shown).rstrip() for text in texts]
