"""What trials printed and warned, and why they failed: of one trial, or of all that have something to tell."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from core.errors import UnknownNameError
from core.records import TrialRecord
from sweep.arguments import Parser

EXAMPLE = "sweep logs lenet-fashion-mnist --trial 3f2a"


def add_arguments(parser: Parser) -> None:
    """The sweep and the trial."""
    parser.sweep()
    parser.add_argument("--trial", metavar="KEY", help="beginning of its key (every trial that tells something)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the logs.

    Raises:
        UnknownNameError: no trial's key begins as ``--trial`` says.
    """
    from sweep.storage.reader import read_sweep

    records = read_sweep(options.results, options.name).records
    if options.trial is not None:
        chosen = [record for record in records if record.key.startswith(options.trial)]
        if not chosen:
            raise UnknownNameError("trial", options.trial, [record.key for record in records])
    else:
        chosen = [record for record in records if record.log or record.status == "failed"]
    if options.json:
        print(json.dumps([as_json(record) for record in chosen], indent=2))
        return 0
    for record in chosen:
        print("\n".join(lines(record)))
    if not chosen:
        print(f"none of the {len(records)} trials has printed anything or failed")
    return 0


def lines(record: TrialRecord) -> list[str]:
    """What one trial has to tell."""
    head = f"{record.key}  {record.title}: {record.status}"
    where = f", {record.seconds:.2f} s on {record.provenance['host']}" if "host" in record.provenance else ""
    reason = [f"  {record.reason}"] if record.reason else []
    return [head + where, *reason, *(f"  | {line}" for line in record.log.splitlines())]


def as_json(record: TrialRecord) -> dict[str, Any]:
    """The same as data."""
    return {
        "key": record.key,
        "title": record.title,
        "status": record.status,
        "reason": record.reason,
        "log": record.log,
        "seconds": record.seconds,
        "host": record.provenance.get("host"),
    }
