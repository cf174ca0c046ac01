"""Go on with a sweep that ended early: no finished trial runs again. With --samples, also with one that is finished."""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction, Namespace

from sweep.arguments import Parser, chosen_cluster, chosen_limits

EXAMPLE = "sweep resume lenet-fashion-mnist --workers 8"


def add_arguments(parser: Parser) -> None:
    """The sweep, and what is to be different from now on."""
    add = parser.add_argument
    parser.sweep()
    add("--samples", type=int, metavar="N", help="how many configurations in all (as before)")
    text = "write the networks on the front when it ends, or not (as before)"
    add("--models", action=BooleanOptionalAction, help=text)
    parser.limits()
    parser.cluster()
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Resume the sweep and print its front."""
    from sweep.reporting.finished import show
    from sweep.reporting.progress import make_reporter
    from sweep.runner import ResumeRequest, resume_sweep
    from sweep.storage.reader import read_sweep

    before = read_sweep(options.results, options.name).info.request
    request = ResumeRequest(
        results=options.results,
        name=options.name,
        cluster=chosen_cluster(options, before.cluster),
        tracking_uri=options.tracking_uri,
        limits=chosen_limits(options, before.limits),
        samples=options.samples,
        models=options.models,
    )
    with make_reporter(sys.stderr) as reporter:
        return show(resume_sweep(request, reporter), options)
