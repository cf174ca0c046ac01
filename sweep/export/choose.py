"""Which trials of a sweep are meant: one by its key, the best of some, the smallest within a drop, the front."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import UsageError
from core.evaluators import Evaluator
from core.metrics import METRICS, SHORT, TEST, axis_named, drop_of
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


def best(sweep: StoredSweep, metric: str = "", where: str = "") -> TrialRecord:
    """The finished trial that is best in ``metric`` (the score) of those for which ``where`` holds.

    Of equal ones it is the smallest.

    Raises:
        UsageError: none is left, or the condition cannot be read.
    """
    score = sweep.scored.score
    metric = {"drop": drop_of(score.name), "": score.name}.get(metric, metric)
    chosen = axis_named(SHORT.get(metric, metric), "metric")
    condition = parse_where(where) if where else None
    finished = [record for record in finished_of(sweep) if chosen.name in record.metrics]
    if not finished:
        raise UsageError(
            f"no trial of {sweep.info.name} has finished with {chosen.label}; '{status_of(sweep)}' tells of it"
        )
    kept = [record for record in finished if condition is None or condition(record)]
    if condition is not None and not kept:
        nearest = min(finished, key=lambda r: (condition.miss(r), score.loss(r.metrics[score.name]), r.key))
        named = described(nearest, sweep.scored)
        raise UsageError(f"no trial of {sweep.info.name} meets {where!r}; the nearest is {named}")
    return min(kept, key=lambda r: (chosen.loss(r.metrics[chosen.name]), r.metrics["params_fraction"], r.key))


def within(sweep: StoredSweep, drop: float, by: str = "params") -> TrialRecord:
    """The smallest trial that loses at most ``drop`` of the score (points of accuracy); of nearly equal ones the best.

    Raises:
        UsageError: none does.
    """
    size, score = axis_named(by, "size"), sweep.scored.score.name
    lost = METRICS[drop_of(score)]
    finished = [r for r in finished_of(sweep) if {lost.name, size.name} <= r.metrics.keys()]
    kept = [record for record in finished if record.metrics[lost.name] <= drop + 1e-9]
    if not kept:
        nearest = min(finished, key=lambda record: record.metrics[lost.name], default=None)
        hint = ""
        if nearest is not None:
            hint = f"; the least is {lost.show(nearest.metrics[lost.name])} ({described(nearest, sweep.scored)})"
        raise UsageError(f"no trial of {sweep.info.name} loses at most {drop:g} {lost.unit}".rstrip() + hint)
    return smallest(sorted(kept, key=lambda record: record.key), size.name, score)


def front(sweep: StoredSweep, by: str = "params") -> list[TrialRecord]:
    """The trials on the front of the score (accuracy) against a size, the best first."""
    size, score = axis_named(by, "size"), sweep.scored.score
    records = [r for r in in_fixed_order(sweep.records) if size.name in r.metrics]
    return sorted(pareto_front(records, size.name, score.name), key=lambda r: score.loss(r.metrics[score.name]))


def finished_of(sweep: StoredSweep) -> Sequence[TrialRecord]:
    """The trials that have a network."""
    return [record for record in sweep.records if record.status == "finished"]


def status_of(sweep: StoredSweep) -> str:
    """The command that shows a sweep and its trials' keys."""
    return f"sweep status {sweep.info.name}{place(sweep.folder.parent)}"


def described(record: TrialRecord, scored: Evaluator) -> str:
    """A trial in a few words."""
    metrics, tested = record.metrics, f"{TEST}{scored.score.name}"
    on = f"{scored.show(metrics)} on {record.split}"
    if tested in metrics:
        on += f" and {scored.show({scored.score.name: metrics[tested]})} on test"
    return f"{record.key}, {on} at {100 * metrics['params_fraction']:.1f} % of the parameters"
