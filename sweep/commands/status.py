"""How far a sweep is and its front so far; without a name, all sweeps, a line each."""

from __future__ import annotations

import json
from argparse import Namespace

from sweep.arguments import Parser

EXAMPLE = "sweep status lenet-fashion-mnist"


def add_arguments(parser: Parser) -> None:
    """The sweep, if one is asked for."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a sweep (all of them)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the state of one sweep or of all."""
    from sweep.state import as_json, as_text, front_text
    from sweep.stored import read_sweep, sweep_names

    names = [options.name] if options.name else sweep_names(options.results)
    sweeps = [read_sweep(options.results, name) for name in names]
    if options.json:
        states = [as_json(sweep) for sweep in sweeps]
        print(json.dumps(states[0] if options.name else states, indent=2))
        return 0
    if not sweeps:
        print(f"no sweep in {options.results}; start one with 'sweep run digits-quick'")
    for sweep in sweeps:
        print("\n".join([*as_text(sweep), *(front_text(sweep) if options.name else [])]))
    return 0
