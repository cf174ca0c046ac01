"""Run a sweep: compress a trained network in all ways of a search space, and get the front."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from sweep.arguments import Parser, chosen_cluster, chosen_limits, evaluation_of, network_changes, pairs
from sweep.storage.address import place

if TYPE_CHECKING:
    from search_spaces import SearchSpace

EXAMPLE = "sweep run lenet-fashion-mnist --search tpe --samples 200 --set criterion=l1 --name first"


def add_arguments(parser: Parser) -> None:
    """Everything about a sweep that is not in its space."""
    parser.usage = "sweep run SPACE [options]"
    add = parser.add_argument
    add("space", metavar="SPACE", help="a name of 'sweep spaces', or the path of a TOML file")
    add("--samples", type=int, metavar="N", help="how many configurations (the space's; grid: all)")
    add("--search", metavar="HOW", help="grid, random, tpe or nsga2 (the space's own default)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the space, e.g. ratio=0.5")
    add("--name", metavar="NAME", help="of the sweep (the space's, numbered if taken)")
    add("--resume", action="store_true", help="go on with the sweep of that name, if it is there")
    add("--seed", type=int, default=0, metavar="S", help="of the search's random draws (0)")
    add("--race", action="store_true", help="stop trials as soon as they are certainly beaten")
    add("--warm-start", action="append", default=[], metavar="NAME", help="an earlier sweep to learn from; repeatable")
    add("--no-models", action="store_true", help="do not write the networks on the front when it ends")
    parser.evaluator()
    parser.network()
    parser.limits()
    parser.cluster()
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Run the sweep and print its front."""
    space = chosen_space(options)
    if options.resume and begun(options, space):
        from sweep.commands import resume

        return resume.run(options)
    from sweep.reporting.finished import show
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


def begun(options: Namespace, space: SearchSpace) -> bool:
    """Whether the sweep that ``--resume`` goes on with is there.

    Raises:
        UsageError: no name is given, or what is there varies something else.
    """
    from sweep.storage.reader import read_sweep, sweep_names

    if options.name is None:
        raise UsageError("--resume goes on with a sweep of a certain name: give --name too")
    if options.name not in sweep_names(options.results):
        return False
    before = read_sweep(options.results, options.name).info.request
    asked, there = lasting(space.settled()), lasting(before.resolved)
    differing = [key for key in sorted({*asked, *there}) if asked.get(key) != there.get(key)]
    differing += [name for name in ("seed", "race") if getattr(options, name) != getattr(before, name)]
    if options.warm_start or differing:
        what = ", ".join(differing) or "--warm-start"
        raise UsageError(
            f"sweep {options.name!r} is there, and began otherwise ({what}): take another --name, or"
            f" 'sweep resume {options.name}{place(options.results)}' to go on with it as it began"
        )
    options.models = False if options.no_models else None
    return True


def lasting(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved space says whether a sweep is the same: not how long it is, nor what a release fills in."""
    parts = {key: part for key, part in resolved.items() if part and key not in ("name", "description", "defaults")}
    return {**parts, "search": {k: v for k, v in parts.get("search", {}).items() if k != "samples"}}


def chosen_space(options: Namespace) -> SearchSpace:
    """The space with every change that the command line makes."""
    from search_spaces import load_space

    changes = {**pairs(options.set, "--set"), **network_changes(options)}
    changes |= {f"evaluation.{name}": value for name, value in evaluation_of(options).items()}
    if options.search is not None:
        changes["search.algorithm"] = options.search
    if options.samples is not None:
        changes["search.samples"] = str(options.samples)
    return load_space(options.space, changes)
