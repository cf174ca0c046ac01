"""How far a sweep is and its front so far; without a name, all sweeps, a line each."""

from __future__ import annotations

import json
import shutil
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from core.errors import NeuronMergingError, UsageError
from sweep.arguments import Parser
from sweep.text import cut

if TYPE_CHECKING:
    from sweep.storage.reader import StoredSweep

EXAMPLE = "sweep status lenet-fashion-mnist --watch"
WATCH_SECONDS = 2.0


def add_arguments(parser: Parser) -> None:
    """The sweep, if one is asked for."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a sweep (all of them)")
    parser.add_argument("--watch", action="store_true", help="show it again and again until it ends; needs NAME")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the state of one sweep or of all.

    Raises:
        NeuronMergingError: the one sweep that was named cannot be read; of several it is said beside the others.
    """
    from sweep.reporting.status import as_json, as_text, front_text
    from sweep.storage.address import place
    from sweep.storage.reader import read_sweep, sweep_names

    if options.watch:
        return watch(options)
    sweeps, unreadable = [], []
    for name in [options.name] if options.name is not None else sweep_names(options.results):
        try:
            sweeps.append(read_sweep(options.results, name))
        except NeuronMergingError as error:
            if options.name is not None:
                raise
            unreadable.append(str(error))
    if options.json:
        states = [as_json(sweep) for sweep in sweeps]
        print(json.dumps(states[0] if options.name else states, indent=2))
        return 0
    if not sweeps and not unreadable:
        print(f"no sweep in {options.results}; start one with 'sweep run digits-quick{place(options.results)}'")
    for sweep in sweeps:
        print("\n".join([*as_text(sweep), *(front_text(sweep) if options.name else [])]))
    for sentence in unreadable:
        print(sentence)
    return 0


def watch(options: Namespace) -> int:
    """Show one sweep until it ends: in place on a terminal, a line each time (or a JSON line) anywhere else.

    Raises:
        UsageError: no sweep was named.
    """
    from sweep.storage.address import place
    from sweep.storage.reader import read_sweep

    if not options.name:
        raise UsageError(f"--watch needs the NAME of a sweep; 'sweep list{place(options.results)}' shows them")
    in_place = sys.stdout.isatty() and not options.json
    if in_place:
        print("\033[2J", end="")
    while True:
        sweep = read_sweep(options.results, options.name)
        ended = sweep.info.status != "running"
        print(picture(sweep, options.json, in_place, ended), end="" if in_place else "\n", flush=True)
        if ended:
            return 0
        time.sleep(WATCH_SECONDS)


def picture(sweep: StoredSweep, as_data: bool, in_place: bool, whole: bool) -> str:
    """One look at a sweep."""
    from sweep.reporting.status import as_json, as_text, front_drawn, front_text

    if as_data:
        return json.dumps(as_json(sweep))
    known = bool(sweep.info.state.original)
    drawn = front_drawn(sweep) if in_place and known else []
    front = front_text(sweep) if (in_place or whole) and known else []
    text = "\n".join([*as_text(sweep), *drawn, *front])
    return repainted(text.splitlines(), whole) if in_place else text


def repainted(lines: list[str], whole: bool) -> str:
    """``lines`` in place of what the terminal shows; written over it, so that nothing flickers.

    Args:
        lines: of the picture.
        whole: it is the last one: all of it is shown. Otherwise only so much as fits, since a line that is wrapped, or
            one too many, would move the next picture away from this one.
    """
    size = shutil.get_terminal_size()
    room = max(1, size.lines - 1)
    fitting = lines if whole else [cut(line, size.columns) for line in lines[:room]]
    if len(fitting) < len(lines):
        fitting[-1] = cut(f"… {len(lines) - room + 1} more lines when it has ended", size.columns)
    return "\033[H" + "".join(f"{line}\033[K\n" for line in fitting) + "\033[J"
