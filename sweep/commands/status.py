"""How far a sweep is and its front so far; without a name, all sweeps, a line each."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from typing import Any

from sweep.arguments import Parser

EXAMPLE = "sweep status lenet-fashion-mnist"


def add_arguments(parser: Parser) -> None:
    """The sweep, if one is asked for."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a sweep (all of them)")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Print the state of one sweep or of all."""
    from sweep.store import read_sweep, sweep_names

    names = [options.name] if options.name else sweep_names(options.results)
    sweeps = [read_sweep(options.results, name) for name in names]
    if options.json:
        states = [state(sweep) for sweep in sweeps]
        print(json.dumps(states[0] if options.name else states, indent=2))
        return 0
    if not sweeps:
        print(f"no sweep in {options.results}; start one with 'sweep run digits-quick'")
    for sweep in sweeps:
        print("\n".join(headline(sweep)))
        if options.name:
            print("\n".join(front_lines(sweep)))
    return 0


def state(sweep: Any) -> dict[str, Any]:
    """A sweep's state as plain data."""
    from sweep.info import progress_of
    from sweep.outcome import reasons_of

    info = sweep.info
    progress = progress_of(sweep.records, info.total, now_of(sweep))
    running = info.status == "running"
    return {
        "name": info.name,
        "space": info.space,
        "status": info.status,
        "message": info.message,
        "finished": progress.finished,
        "failed": progress.failed,
        "total": progress.total,
        "rate": round(progress.rate, 3) if running else None,
        "eta_seconds": round(progress.eta_seconds, 1) if running and progress.rate > 0 else None,
        "best_accuracy": progress.best.metrics["accuracy"] if progress.best else None,
        "reasons": reasons_of(sweep),
        "torn_lines": sweep.torn_lines,
        "front": front_keys(sweep),
    }


def front_keys(sweep: Any) -> list[dict[str, Any]]:
    """The front so far: key, accuracy and fraction of parameters."""
    from core.pareto import pareto_front

    names = ("accuracy", "params_fraction")
    return [{"key": r.key} | {name: r.metrics[name] for name in names} for r in pareto_front(sweep.records)]


def now_of(sweep: Any) -> float:
    """The time that the sweep's rate refers to: now, or its end."""
    return time.time() if sweep.info.status == "running" else sweep.info.ended_at or time.time()


def headline(sweep: Any) -> list[str]:
    """The sweep in one line, with what is wrong with it below."""
    from dataclasses import replace

    from sweep.info import progress_of
    from sweep.outcome import lines, reasons_of
    from sweep.progress import describe

    progress = progress_of(sweep.records, sweep.info.total, now_of(sweep))
    if sweep.info.status != "running":
        progress = replace(progress, rate=0.0, eta_seconds=float("nan"))
    why = f" ({sweep.info.message})" if sweep.info.message else ""
    torn = [f"  {sweep.torn_lines} damaged lines in trials.jsonl are left out"] if sweep.torn_lines else []
    failed = [f"  {line}" for line in lines(reasons_of(sweep))]
    return [f"{sweep.info.name}: {sweep.info.status}{why}, {describe(progress)}", *torn, *failed]


def front_lines(sweep: Any) -> list[str]:
    """The front so far as a table."""
    if not sweep.records:
        return []
    from dashboards import front_table
    from sweep.outcome import pareto_info

    return ["", front_table(pareto_info(sweep))]
