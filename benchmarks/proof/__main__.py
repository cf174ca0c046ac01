"""Measure the parts of docs/proof.md and write them into it."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.proof.page import TITLES, assemble, not_run, written
from benchmarks.proof.setting import NotRunError, Setting
from core.errors import NeuronMergingError
from sweep.backend.worker import keep_freed_memory

PAGE = Path("docs/proof.md")
LONG = ("more_peers", "photographs", "recovered", "cifar", "decoupling")
"""Parts of the full proof, and of the other only where they are asked for."""
CACHE = Path(".cache/proof")


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for, one after the other; each is on the page as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    which = f"of {', '.join(TITLES)}; none: all, without --full all but {', '.join(LONG)}"
    parser.add_argument("parts", nargs="*", metavar="PART", help=which)
    parser.add_argument("--full", action="store_true", help="all networks and test images, and training: hours")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the trained networks")
    options = parser.parse_args(words)
    if unknown := set(options.parts) - set(TITLES):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(TITLES)}")
    torch.set_num_threads(1)
    keep_freed_memory()
    setting = Setting(options.full, options.cache, options.page.parent)
    for name in options.parts or [name for name in TITLES if options.full or name not in LONG]:
        text = part(name, setting)
        before = options.page.read_text() if options.page.is_file() else ""
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(assemble(before, {name: text}))
    return 0


def part(name: str, setting: Setting) -> str:
    """The text of one section; one that lacks something says so."""
    clock = time.perf_counter()
    print(f"== {name}", file=sys.stderr, flush=True)
    try:
        section = importlib.import_module(f"benchmarks.proof.{name}").section(setting)
    except (NotRunError, NeuronMergingError, SystemExit) as error:  # SystemExit: what a benchmark ends with
        print(f"{name}: not run: {error}", file=sys.stderr)
        return not_run(setting, name, str(error))
    return written(section, setting, name, time.perf_counter() - clock)


if __name__ == "__main__":
    raise SystemExit(main())
