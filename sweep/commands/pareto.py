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
    add("--x", default="params", metavar="SIZE", help="params, macs, bytes, latency or any metric (params)")
    add("--y", default="accuracy", metavar="METRIC", help="what it is compared with (accuracy)")
    add("--plot", default="pareto", metavar="PLOT", help="pareto or accuracy-by-ratio (pareto)")
    add("--format", default="png,html,csv", metavar="LIST", help="of png, svg, html, csv, json (png,html,csv)")
    add("--out", type=Path, metavar="DIR", help="folder for the files (the sweep's own)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the files and print the front and their paths.

    Raises:
        UnknownNameError: ``--format`` or ``--plot`` names something that there is not.
    """
    from dashboards import PLOTS
    from sweep.reporting.outcome import FORMATS, make_outcome
    from sweep.storage.reader import read_sweep

    formats = [form.strip() for form in options.format.split(",") if form.strip()]
    for form in formats:
        if form not in FORMATS:
            raise UnknownNameError("format", form, FORMATS)
    PLOTS.require(options.plot)
    sweep = read_sweep(options.results, options.name)
    outcome = make_outcome(sweep, formats, options.out, options.x, options.y, options.plot)
    if options.json:
        front = [{"key": p.key, "split": p.split, "metrics": dict(p.metrics)} for p in outcome.info.front]
        print(json.dumps({"files": [str(p) for p in outcome.files], **outcome.metrics, "front": front}, indent=2))
    else:
        print("\n".join([outcome.table, "", *map(str, outcome.files)]))
    return 0
