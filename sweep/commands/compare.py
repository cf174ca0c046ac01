"""Write one HTML page about several sweeps, and a picture: their fronts, with hypervolumes on a common reference."""

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
    """Write the page and the picture beside it, and print their paths and each front's hypervolume.

    Raises:
        UsageError: fewer than two different sweeps are named.
    """
    names = list(dict.fromkeys(options.names))
    if len(names) < 2:
        raise UsageError("compare two sweeps or more; 'sweep report' is about one")
    from core.pareto import hypervolume
    from dashboards import save_fronts
    from sweep.reporting.outcome import pareto_info
    from sweep.reporting.report import write_report
    from sweep.storage.layout import COMPARISON
    from sweep.storage.reader import read_sweep

    sweeps = [read_sweep(options.results, name) for name in names]
    path = write_report(sweeps, options.out or options.results / COMPARISON)
    picture = save_fronts([pareto_info(sweep) for sweep in sweeps], path.with_suffix(".png"))
    areas = {sweep.info.name: round(hypervolume(sweep.records), 3) for sweep in sweeps}
    if options.json:
        print(json.dumps({"file": str(path), "picture": str(picture), "hypervolume": areas}, indent=2))
    else:
        print(
            "\n".join(
                [*(f"{name}: hypervolume {area:.3f} of 100" for name, area in areas.items()), str(path), str(picture)]
            )
        )
    return 0
