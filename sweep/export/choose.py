"""Which trials of a sweep are meant: one by its key, the best of some, the smallest within a drop, the front."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import UsageError
from core.metrics import SHORT, TEST, axis_named
from core.pareto import pareto_front, smallest
from core.records import TrialRecord
from core.where import parse_where
from sweep.reporting.outcome import in_fixed_order
from sweep.storage.address import place
from sweep.storage.reader import StoredSweep

SHORTEST = 6
"""Digits of a key that are enough."""


def by_key(sweep: StoredSweep, key: str) -> TrialRecord:
    """The finished trial whose key begins with ``key``.

    Raises:
        UsageError: there is none, there are several, or the trial has no network to be had.
    """
    record = any_by_key(sweep, key)
    if record.status != "finished":
        why = "was stopped by the race" if record.status == "stopped" else f"failed ({record.reason})"
        raise UsageError(f"trial {record.key} {why}, so it has no network to export; choose one that finished")
    return record


def any_by_key(sweep: StoredSweep, key: str) -> TrialRecord:
    """The trial whose key begins with ``key``, however it ended.

    Raises:
        UsageError: there is none, there are several, or ``key`` is shorter than `SHORTEST`.
    """
    if len(key) < SHORTEST:
        raise UsageError(f"trial {key!r}: give at least {SHORTEST} digits of its key, as '{status_of(sweep)}' shows it")
    found = [record for record in sweep.records if record.key.startswith(key)]
    if not found:
        raise UsageError(f"{sweep.info.name}: no trial's key begins with {key!r}; '{status_of(sweep)}' shows them")
    if len(found) > 1:
        keys = " or ".join(record.key for record in found[:3])
        raise UsageError(f"trial {key!r} may be {keys}; give more of its key")
    return found[0]


def best(sweep: StoredSweep, metric: str = "accuracy", where: str = "") -> TrialRecord:
    """The finished trial that is best in ``metric`` of those for which ``where`` holds; of equal ones the smallest.

    Raises:
        UsageError: none is left, or the condition cannot be read.
    """
    chosen = axis_named(SHORT.get(metric, metric), "metric")
    condition = parse_where(where) if where else None
    finished = [record for record in finished_of(sweep) if chosen.name in record.metrics]
    if not finished:
        raise UsageError(
            f"no trial of {sweep.info.name} has finished with {chosen.label}; '{status_of(sweep)}' tells of it"
        )
    kept = [record for record in finished if condition is None or condition(record)]
    if condition is not None and not kept:
        nearest = min(finished, key=lambda record: (condition.miss(record), -record.metrics["accuracy"], record.key))
        raise UsageError(f"no trial of {sweep.info.name} meets {where!r}; the nearest is {described(nearest)}")
    return min(kept, key=lambda r: (chosen.loss(r.metrics[chosen.name]), r.metrics["params_fraction"], r.key))


def within(sweep: StoredSweep, drop: float, by: str = "params") -> TrialRecord:
    """The smallest trial that loses at most ``drop`` points of accuracy; of (nearly) equal ones the most accurate.

    Raises:
        UsageError: none does.
    """
    size = axis_named(by, "size")
    finished = [r for r in finished_of(sweep) if {"accuracy_drop", size.name} <= r.metrics.keys()]
    kept = [record for record in finished if record.metrics["accuracy_drop"] <= drop + 1e-9]
    if not kept:
        nearest = min(finished, key=lambda record: record.metrics["accuracy_drop"], default=None)
        hint = (
            "" if nearest is None else f"; the least is {nearest.metrics['accuracy_drop']:.2f} ({described(nearest)})"
        )
        raise UsageError(f"no trial of {sweep.info.name} loses at most {drop:g} points{hint}")
    return smallest(sorted(kept, key=lambda record: record.key), size.name)


def front(sweep: StoredSweep, by: str = "params") -> list[TrialRecord]:
    """The trials on the front of accuracy against a size, the most accurate first."""
    size = axis_named(by, "size")
    records = [r for r in in_fixed_order(sweep.records) if size.name in r.metrics]
    return sorted(pareto_front(records, x=size.name), key=_accuracy)


def finished_of(sweep: StoredSweep) -> Sequence[TrialRecord]:
    """The trials that have a network."""
    return [record for record in sweep.records if record.status == "finished"]


def status_of(sweep: StoredSweep) -> str:
    """The command that shows a sweep and its trials' keys."""
    return f"sweep status {sweep.info.name}{place(sweep.folder.parent)}"


def described(record: TrialRecord) -> str:
    """A trial in a few words."""
    metrics = record.metrics
    on = f"{metrics['accuracy']:.2f} % on {record.split}"
    if f"{TEST}accuracy" in metrics:
        on += f" and {metrics[f'{TEST}accuracy']:.2f} % on test"
    return f"{record.key}, {on} at {100 * metrics['params_fraction']:.1f} % of the parameters"


def _accuracy(record: TrialRecord) -> float:
    return -record.metrics["accuracy"]
