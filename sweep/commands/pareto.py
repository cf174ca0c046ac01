"""Write the front of a sweep, finished or not: the plot (png, svg, html) and the trials on it (csv, json)."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from core.errors import UnknownNameError
from sweep.arguments import Parser

EXAMPLE = "sweep pareto lenet-fashion-mnist --x macs --format png,csv --out plots"


def add_arguments(parser: Parser) -> None:
    """The sweep, and what is written where."""
    add = parser.add_argument
    parser.sweep()
    add("--x", default="params", metavar="SIZE", help="params, macs, bytes or latency (params)")
    add("--format", default="png,html,csv", metavar="LIST", help="of png, svg, html, csv, json (png,html,csv)")
    add("--out", type=Path, metavar="DIR", help="folder for the files (the sweep's own)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the files and print the front and their paths."""
    from sweep.reporting.outcome import FORMATS, make_outcome
    from sweep.storage.reader import read_sweep

    formats = [form.strip() for form in options.format.split(",") if form.strip()]
    for form in formats:
        if form not in FORMATS:
            raise UnknownNameError("format", form, FORMATS)
    outcome = make_outcome(read_sweep(options.results, options.name), formats, options.out, options.x)
    if options.json:
        front = [{"key": point.key, "metrics": dict(point.metrics)} for point in outcome.info.front]
        print(json.dumps({"files": [str(p) for p in outcome.files], **outcome.metrics, "front": front}, indent=2))
    else:
        print("\n".join([outcome.table, "", *map(str, outcome.files)]))
    return 0
