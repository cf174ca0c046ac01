"""Write what MLflow lacks of a sweep: after a server was away, or to another server. Nothing is written twice."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from sweep.arguments import Parser

EXAMPLE = "sweep sync lenet-fashion-mnist --tracking-uri http://127.0.0.1:5000"


def add_arguments(parser: Parser) -> None:
    """The sweep and the server."""
    parser.sweep()
    parser.add_argument("--tracking-uri", metavar="URI", help="of an MLflow server or database (the sweep's own)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Write what is missing and say how much that was.

    Raises:
        TrackingError: not everything could be written.
    """
    from sweep.errors import TrackingError
    from sweep.export.models import log_models
    from sweep.export.rebuild import Rebuilder
    from sweep.reporting.progress import make_reporter
    from sweep.storage.address import place
    from sweep.storage.reader import read_sweep
    from sweep.tracking.sync import sync, target

    name = f"{options.name}{place(options.results)}"
    report = sync(options.results, options.name, options.tracking_uri)
    if report.missing or report.problem:
        raise TrackingError(
            f"{report.missing} trials could not be written ({report.problem}); 'sweep sync {name}' tries again"
        )
    sweep = read_sweep(options.results, options.name, whole=True)
    with make_reporter(sys.stderr) as reporter:
        rebuilder = Rebuilder(options.results, sweep, reporter)
        problem = log_models(target(sweep, options.results, options.tracking_uri), rebuilder, reporter)
    if problem:
        raise TrackingError(
            f"every trial is in MLflow, but not every network of the front ({problem}); 'sweep sync {name}' tries again"
        )
    if options.json:
        print(json.dumps({"name": options.name, "run_id": report.run_id, "logged": report.logged}, indent=2))
    else:
        print(f"{report.logged} trials of {options.name!r} are in MLflow, run {report.run_id}")
    return 0
