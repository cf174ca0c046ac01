"""Show a search space in full: what varies and when, how many configurations there are, what a trial does."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from core.complaints import show
from core.parts import is_pretrained
from core.recipes import Recipe
from sweep.arguments import Parser
from sweep.commands.missing import missing
from sweep.commands.run import chosen_space

if TYPE_CHECKING:
    from search_spaces.describe import SpaceInfo

EXAMPLE = "sweep show lenet-fashion-mnist --set ratio=0.5"


def add_arguments(parser: Parser) -> None:
    """The space and its changes."""
    parser.add_argument("space", metavar="SPACE", help="a name of 'sweep spaces', or the path of a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the space")
    parser.add_argument("--search", metavar="HOW", help="grid, random, tpe or nsga2 (the space's)")
    parser.add_argument("--samples", type=int, metavar="N", help="how many configurations (the space's; grid: all)")
    parser.evaluator()
    parser.network()
    parser.cluster()
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the space, and what a sweep of it lacks; 1 if that is anything."""
    space = chosen_space(options)
    info, lacks = space.describe(), missing(space, options)
    text = [*lines(info), *(f"missing: {what}" for what in lacks or ["nothing"])]
    print(json.dumps(asdict(info) | {"missing": lacks}, indent=2) if options.json else "\n".join(text))
    return 1 if lacks else 0


def lines(info: SpaceInfo) -> list[str]:
    """The space in words, a line each."""
    trained = "checkpoint" not in info.baseline and not is_pretrained(str(info.baseline["model"]))
    unread = set() if trained else {field.name for field in fields(Recipe)} | {"seed"}
    baseline = ", ".join(f"{key} {show(value)}" for key, value in info.baseline.items() if key not in unread)
    ways = {"max": "up", "min": "down"}
    goals = ", ".join(f"{metric} {ways[way]}" for metric, way in info.objectives.items())
    size = "endlessly many" if info.size is None else str(info.size)
    tested = " The front is evaluated on the test split too." if info.split != "test" else ""
    trains = info.fixed.get("recovery", "none") != "none" or any(axis.name == "recovery" for axis in info.axes)
    how = "lets it recover by training if that says so" if trains else "without training"
    measures = "accuracy, loss" if "accuracy" in info.objectives else next(iter(info.objectives))
    return [
        f"{info.name}: {info.description}",
        f"original network: {baseline}",
        f"search: {info.algorithm}, {goals}; {info.trials} trials out of {size} configurations",
        *(f"  {name} = {value}" for name, value in info.fixed.items()),
        *(f"  {axis.name}: {axis.values}" + (f"  (when {axis.when})" if axis.when else "") for axis in info.axes),
        f"A trial compresses the original network with one configuration, {how}, evaluates it on the",
        f"{info.split} split, and records {measures}, parameters, MACs, bytes and latency.{tested}",
        "This was a dry run: nothing started.",
    ]
