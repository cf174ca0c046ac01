"""Write one HTML page about several sweeps, and a picture: their fronts, with hypervolumes on a common reference."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from core.errors import UsageError
from sweep.arguments import Parser, listed

EXAMPLE = "sweep compare lenet-fashion-mnist digits-quick --out both.html --format png,svg"
PICTURES = ("png", "svg")


def add_arguments(parser: Parser) -> None:
    """The sweeps, and where the page goes."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="of two sweeps or more")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (compare.html in the results folder)")
    parser.add_argument("--format", default="png", metavar="LIST", help="of png, svg: the picture beside it (png)")
    parser.add_argument("--dark", action="store_true", help="the picture light on dark; the page is as the browser's")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write the page and the pictures beside it, and print their paths and each front's hypervolume.

    Raises:
        UsageError: fewer than two different sweeps are named, or the page would have a picture's name.
    """
    names = list(dict.fromkeys(options.names))
    if len(names) < 2:
        raise UsageError("compare two sweeps or more; 'sweep report' is about one")
    formats = listed(options.format, "--format", PICTURES)
    if options.out is not None and options.out.suffix.lower().removeprefix(".") in PICTURES:
        page = options.out.with_suffix(".html")
        raise UsageError(f"--out {options.out}: that is the page; write --out {page}, and the picture lies beside it")
    from dashboards import save_fronts
    from dashboards.style import DARK, LIGHT, drawn_in
    from sweep.reporting.outcome import pareto_info, require_alike
    from sweep.reporting.report import write_report
    from sweep.storage.layout import COMPARISON
    from sweep.storage.reader import read_sweep

    sweeps = [read_sweep(options.results, name) for name in names]
    require_alike(sweeps)
    path = write_report(sweeps, options.out or options.results / COMPARISON)
    infos = [pareto_info(sweep) for sweep in sweeps if sweep.scored.score.name in sweep.info.state.original]
    with drawn_in(DARK if options.dark else LIGHT):
        pictures = [str(save_fronts(infos, path.with_suffix(f".{form}"))) for form in formats if infos]
    areas = {sweep.info.name: round(sweep.hypervolume, 3) for sweep in sweeps}
    if options.json:
        found = {"file": str(path), "picture": next(iter(pictures), None), "pictures": pictures, "hypervolume": areas}
        print(json.dumps(found, indent=2))
    else:
        told = (f"{name}: hypervolume {area:.3f} of 100" for name, area in areas.items())
        print("\n".join([*told, str(path), *pictures]))
    return 0
