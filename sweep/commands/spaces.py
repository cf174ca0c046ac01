"""List the search spaces that come with the package; a file of your own is given by its path instead."""

from __future__ import annotations

import json
from argparse import Namespace

from sweep.arguments import Parser

EXAMPLE = "sweep spaces"


def add_arguments(parser: Parser) -> None:
    """Only --json."""
    parser.json()


def run(options: Namespace) -> int:
    """Print a line for each space."""
    from search_spaces import list_spaces

    found = [space.describe() for space in list_spaces()]
    if options.json:
        rows = [{"name": s.name, "description": s.description, "size": s.size, "trials": s.trials} for s in found]
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(space.name) for space in found)
    for space in found:
        print(f"{space.name:<{width}}  {space.trials:>5} trials  {space.description}")
    return 0
