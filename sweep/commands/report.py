"""Write one HTML page about a sweep, finished or not: its front, every trial, what mattered, what failed."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sweep.arguments import Parser

EXAMPLE = "sweep report lenet-fashion-mnist --out lenet.html"


def add_arguments(parser: Parser) -> None:
    """The sweep, and where the page goes."""
    parser.sweep()
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html in the sweep's own folder)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the page and print its path."""
    from sweep.reporting.report import write_report
    from sweep.storage.layout import REPORT
    from sweep.storage.reader import read_sweep

    sweep = read_sweep(options.results, options.name)
    path = write_report([sweep], options.out or sweep.folder / REPORT)
    print(json.dumps({"file": str(path)}) if options.json else path)
    return 0
