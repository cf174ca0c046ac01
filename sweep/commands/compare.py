"""Write one HTML page about several sweeps: their fronts in one plot, with hypervolumes on a common reference."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from core.errors import UsageError
from sweep.arguments import Parser

EXAMPLE = "sweep compare lenet-fashion-mnist digits-quick --out both.html"


def add_arguments(parser: Parser) -> None:
    """The sweeps, and where the page goes."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="of two sweeps or more")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (compare.html in the results folder)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the page and print its path, and each front's hypervolume.

    Raises:
        UsageError: fewer than two different sweeps are named.
    """
    names = list(dict.fromkeys(options.names))
    if len(names) < 2:
        raise UsageError("compare two sweeps or more; 'sweep report' is about one")
    from core.pareto import hypervolume
    from sweep.reporting.report import write_report
    from sweep.storage.layout import COMPARISON
    from sweep.storage.reader import read_sweep

    sweeps = [read_sweep(options.results, name) for name in names]
    path = write_report(sweeps, options.out or options.results / COMPARISON)
    areas = {sweep.info.name: round(hypervolume(sweep.records), 3) for sweep in sweeps}
    if options.json:
        print(json.dumps({"file": str(path), "hypervolume": areas}, indent=2))
    else:
        print("\n".join([*(f"{name}: hypervolume {area:.3f} of 100" for name, area in areas.items()), str(path)]))
    return 0
