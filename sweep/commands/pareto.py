"""Write the front of a sweep, finished or not, as plots (png, svg, html) and tables (csv, json); or several fronts."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UsageError
from core.registry import Registry
from sweep.arguments import Parser, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.storage.reader import StoredSweep

EXAMPLE = "sweep pareto lenet-fashion-mnist --x macs --format png,csv --out plots"
LEAST_DPI, MOST_DPI = 30, 1200


def add_arguments(parser: Parser) -> None:
    """The sweeps, and what is written where."""
    plots: Registry[object] = Registry("plot", "dashboards.plots")  # its names alone: nothing that draws is imported
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="of a sweep, or of several for one plot of their fronts")
    add("--x", default="params", metavar="SIZE", help="params, macs, bytes, latency or any metric (params)")
    add("--y", default="", metavar="METRIC", help="what it is compared with (what the sweep is scored by)")
    add("--plot", default="pareto", metavar="PLOT", help=f"{' or '.join(plots.names())} (pareto)")
    add("--format", default="png,html,csv", metavar="LIST", help="of png, svg, html, csv, json (png,html,csv)")
    add("--all", action="store_true", help="every trial as trials.csv, not only the front")
    add("--dark", action="store_true", help="light on dark")
    add("--dpi", type=int, default=150, metavar="N", help="dots per inch of a PNG, 9.6 by 5.6 inches (150; print: 300)")
    add("--out", type=Path, metavar="DIR", help="folder for the files (the sweep's own; of several, --results)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the files and print the front and their paths.

    Raises:
        UsageError: ``--dpi`` is out of bounds, no format is named, or several sweeps are to have a plot of one.
    """
    from dashboards import PLOTS
    from sweep.reporting.outcome import FORMATS
    from sweep.storage.reader import read_sweep

    formats = listed(options.format, "--format", FORMATS)
    PLOTS.require(options.plot)
    if not LEAST_DPI <= options.dpi <= MOST_DPI:
        raise UsageError(f"--dpi {options.dpi}: give {LEAST_DPI} to {MOST_DPI}")
    names = list(dict.fromkeys(options.names))
    if len(names) > 1 and options.plot != "pareto":
        raise UsageError(f"--plot {options.plot} is of one sweep; several have their fronts in one plot")
    sweeps = [read_sweep(options.results, name) for name in names]
    from dashboards.style import DARK, LIGHT, drawn_in

    with drawn_in(DARK if options.dark else LIGHT):
        return one(options, sweeps[0], formats) if len(sweeps) == 1 else several(options, sweeps, formats)


def one(options: Namespace, sweep: StoredSweep, formats: Sequence[str]) -> int:
    """The front of one sweep."""
    from dashboards import write_trials_csv
    from sweep.reporting.outcome import make_outcome
    from sweep.storage.layout import TRIALS_CSV

    outcome = make_outcome(sweep, formats, options.out, options.x, options.y, options.plot, options.dpi)
    files, name = list(outcome.files), sweep.info.name
    if options.all:
        path = (options.out or sweep.folder) / TRIALS_CSV
        files.append(write_trials_csv({name: outcome.info}, {name: sweep.records}, path))
    if options.json:
        front = [{"key": p.key, "split": p.split, "metrics": dict(p.metrics)} for p in outcome.info.front]
        print(json.dumps({"files": list(map(str, files)), **outcome.metrics, "front": front}, indent=2))
    else:
        print("\n".join([outcome.table, "", *map(str, files)]))
    return 0


def several(options: Namespace, sweeps: Sequence[StoredSweep], formats: Sequence[str]) -> int:
    """The fronts of several sweeps, and their hypervolumes on one reference."""
    from sweep.reporting.outcome import pareto_info, write_fronts

    files = write_fronts(sweeps, formats, options.out or options.results, options.x, options.y, options.dpi)
    areas = {sweep.info.name: pareto_info(sweep, options.x, options.y).hypervolume for sweep in sweeps}
    if options.json:
        print(json.dumps({"files": list(map(str, files)), "hypervolume": areas}, indent=2))
    else:
        known = (f"{name}: hypervolume {area:.3f} of 100" for name, area in areas.items() if area is not None)
        print("\n".join([*known, *map(str, files)]))
    return 0
