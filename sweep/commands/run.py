"""Run a sweep: compress a trained network in all ways of a search space, and get the front."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from sweep.arguments import Parser, chosen_cluster, chosen_limits, network_changes, pairs

if TYPE_CHECKING:
    from search_spaces import SearchSpace
    from sweep.reporting.finished import Finished

EXAMPLE = "sweep run lenet-fashion-mnist --search tpe --samples 200 --set criterion=l1 --name first"


def add_arguments(parser: Parser) -> None:
    """Everything about a sweep that is not in its space."""
    parser.usage = "sweep run SPACE [options]"
    add = parser.add_argument
    add("space", metavar="SPACE", help="a name of 'sweep spaces', or the path of a TOML file")
    add("--samples", type=int, metavar="N", help="how many configurations (the space's own default; grid: all)")
    add("--search", metavar="HOW", help="grid, random, tpe or nsga2 (the space's own default)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the space, e.g. ratio=0.5")
    add("--name", metavar="NAME", help="of the sweep (the space's name, with a number if that is taken)")
    add("--seed", type=int, default=0, metavar="S", help="of the search's random draws (0)")
    add("--race", action="store_true", help="stop trials that are certainly beaten before all images are evaluated")
    add("--warm-start", action="append", default=[], metavar="NAME", help="an earlier sweep to learn from; repeatable")
    add("--no-models", action="store_true", help="do not write the networks on the front when it ends")
    parser.network()
    parser.limits()
    parser.cluster()
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Run the sweep and print its front."""
    space = chosen_space(options)
    from sweep.reporting.progress import make_reporter
    from sweep.runner import RunRequest, run_sweep
    from sweep.storage.info import ClusterRequest, Limits

    request = RunRequest(
        space=space,
        results=options.results,
        name=options.name,
        seed=options.seed,
        cluster=chosen_cluster(options, ClusterRequest()),
        tracking_uri=options.tracking_uri,
        race=options.race,
        limits=chosen_limits(options, Limits()),
        warm_start=options.warm_start,
        models=not options.no_models,
    )
    with make_reporter(sys.stderr) as reporter:
        finished = run_sweep(request, reporter)
    return show(finished, options)


def show(finished: Finished, options: Namespace) -> int:
    """Print how the sweep ended and return the exit code."""
    from sweep.reporting.finished import as_json, as_text

    print(json.dumps(as_json(finished), indent=2) if options.json else "\n".join(as_text(finished, options.results)))
    return finished.exit_code


def chosen_space(options: Namespace) -> SearchSpace:
    """The space with every change that the command line makes."""
    from search_spaces import load_space

    changes = {**pairs(options.set, "--set"), **network_changes(options)}
    if options.search is not None:
        changes["search.algorithm"] = options.search
    if options.samples is not None:
        changes["search.samples"] = str(options.samples)
    return load_space(options.space, changes)
