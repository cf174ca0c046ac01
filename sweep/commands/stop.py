"""End a running sweep in good order, wherever it runs with this results folder; 'sweep resume' goes on with it."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from sweep.arguments import Parser

if TYPE_CHECKING:
    from sweep.storage.reader import StoredSweep

EXAMPLE = "sweep stop lenet-fashion-mnist"
PATIENCE_SECONDS = 60.0


def add_arguments(parser: Parser) -> None:
    """The sweep."""
    parser.sweep()
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Leave word for the sweep's process, and wait until it is gone.

    Raises:
        StoreError: the sweep's folder cannot be written, or its process does not end in time.
    """
    from sweep.errors import StoreError
    from sweep.storage.address import place
    from sweep.storage.layout import STOP
    from sweep.storage.reader import is_locked, read_sweep, unwritable
    from sweep.storage.writer import require_own_files

    sweep = read_sweep(options.results, options.name)
    if sweep.info.status != "running":
        return told(sweep, options, f"sweep {options.name!r} is not running ({sweep.info.status})")
    require_own_files(sweep.folder)
    try:
        (sweep.folder / STOP).touch()
    except OSError as error:
        raise StoreError(unwritable(sweep.folder, error)) from None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_locked(sweep.folder):
        if time.monotonic() > deadline:
            raise StoreError(
                f"sweep {options.name!r} has been told to stop and has not ended yet; it prepares its network or writes"
                f" to MLflow, else end process {sweep.info.state.pid} on {sweep.info.state.host} yourself"
            )
        time.sleep(0.1)
    if not sweep.folder.exists():  # it had no trial yet; the training of its original network is kept
        sentence = f"sweep {options.name!r} had tried nothing yet and is gone; the command that began it goes on"
        return told(sweep, options, sentence, status="stopped")
    sweep = read_sweep(options.results, options.name)
    return told(
        sweep,
        options,
        f"sweep {options.name!r} {sweep.info.status}, {len(sweep.records)} of {sweep.info.state.total} trials are kept;"
        f" 'sweep resume {options.name}{place(options.results)}' goes on",
    )


def told(sweep: StoredSweep, options: Namespace, sentence: str, status: str = "") -> int:
    """Say how the sweep is left, in a sentence or as data."""
    info = sweep.info
    found = {"name": options.name, "status": status or info.status, "trials": len(sweep.records)}
    found["total"] = info.state.total
    print(json.dumps(found, indent=2) if options.json else sentence)
    return 0
