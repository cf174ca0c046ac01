"""What the shell offers while a command line is typed; the scripts of ``sweep completion`` ask for it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter

from core.registry import Registry
from sweep.arguments import RESULTS, Parser


def complete(verbs: Mapping[str, str]) -> None:
    """Print the words that may come next, and leave the process.

    Args:
        verbs: name -> what it does.
    """
    parser = Parser(prog="sweep", add_help=False)
    parser.add_argument("--version", action="store_true", help="the version")
    under = parser.add_subparsers()
    for verb, text in verbs.items():
        command: Any = importlib.import_module(f"sweep.commands.{verb}")
        own = under.add_parser(verb, help=text)
        command.add_arguments(own)
        for action in own._actions:
            if action.dest == "results":
                action.type = Path  # an address in object storage is not to be fetched for this
            if action.dest in COMPLETERS and action.choices is None:
                action.completer = COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def sweeps(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The sweeps in the results folder that the line names so far."""
    from sweep.storage.reader import sweep_names

    return sweep_names(getattr(parsed_args, "results", None) or RESULTS)


def spaces(prefix: str, **_: Any) -> Iterable[str]:
    """The bundled search spaces, and files."""
    from search_spaces.schema import bundled

    return [*bundled(), *FilesCompleter(["toml"])(prefix)]


def registered(kind: str) -> Callable[..., list[str]]:
    """The names of a registry of the core."""

    def names(**_: Any) -> list[str]:
        module, registry = kind.split(":")
        return sorted(getattr(importlib.import_module(module), registry).names())

    return names


COMPLETERS: Mapping[str, Callable[..., Iterable[str]]] = {
    "name": sweeps,
    "names": sweeps,
    "warm_start": sweeps,
    "space": spaces,
    "search": registered("search_spaces.algorithms:ALGORITHMS"),
    "criterion": registered("core.criteria:CRITERIA"),
    "decomposition": registered("core.decompositions:DECOMPOSITIONS"),
    "allocation": registered("core.allocation:ALLOCATIONS"),
    "recovery": registered("core.recovery.base:RECOVERIES"),
    "plot": lambda **_: Registry[object]("plot", "dashboards.plots").names(),
    "model": registered("core.parts:MODELS"),
    "dataset": registered("core.parts:DATASETS"),
}
"""Where a value goes -> what it may be."""
