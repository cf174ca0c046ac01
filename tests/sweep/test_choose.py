"""Which network is exported: what a scan of all records finds, on random sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import TrialConfig
from core.errors import UsageError
from core.evaluators import USUAL
from core.records import TrialRecord
from sweep.export.choose import best, by_key, front, within
from sweep.storage.reader import StoredSweep

NUMBERS = st.lists(st.tuples(st.integers(50, 95), st.integers(1, 20)), min_size=1, max_size=25)


class Request:
    scored = USUAL


class Info:
    name = "toy"
    request = Request()


def sweep_of(found: list[tuple[int, int]], **more: Any) -> StoredSweep:
    records = []
    for seed, (accuracy, left) in enumerate(found):
        config = TrialConfig(seed=seed)
        metrics = {"accuracy": float(accuracy), "accuracy_drop": 95.0 - accuracy}
        metrics |= {f"{size}_fraction": left / 20 for size in ("params", "macs", "bytes", "latency")}
        records.append(TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics))
    return StoredSweep(Info(), [*records, *more.get("others", [])], 0, Path())  # type: ignore[arg-type]


@given(NUMBERS, st.integers(1, 20))
def test_the_best_under_a_size_is_what_a_scan_finds(found: list[tuple[int, int]], most: int) -> None:
    kept = [(accuracy, -left) for accuracy, left in found if left / 20 <= most / 20]
    if not kept:
        with pytest.raises(UsageError, match=r"no trial of toy meets .*; the nearest is"):
            best(sweep_of(found), where=f"params <= {most / 20}")
        return
    chosen = best(sweep_of(found), where=f"params <= {most / 20}")
    assert (chosen.metrics["accuracy"], -20 * chosen.metrics["params_fraction"]) == max(kept)


@given(NUMBERS, st.integers(0, 30))
def test_the_smallest_within_a_drop_is_what_a_scan_finds(found: list[tuple[int, int]], drop: int) -> None:
    kept = [(left, -accuracy) for accuracy, left in found if 95 - accuracy <= drop]
    if not kept:
        with pytest.raises(UsageError, match=f"loses at most {drop} points; the least is"):
            within(sweep_of(found), drop)
        return
    chosen = within(sweep_of(found), drop, by="macs")
    assert (20 * chosen.metrics["macs_fraction"], -chosen.metrics["accuracy"]) == min(kept)


@given(NUMBERS)
def test_the_front_has_no_member_that_another_one_beats(found: list[tuple[int, int]]) -> None:
    points = {(r.metrics["accuracy"], 20 * r.metrics["params_fraction"]) for r in front(sweep_of(found))}
    scan = {
        (a, left)
        for a, left in found
        if not any((b >= a and other <= left) and (b, other) != (a, left) for b, other in found)
    }
    assert points == scan


def test_a_key_may_be_short_and_must_be_one_of_a_network() -> None:
    others = [
        TrialRecord(key="abcdef0000000000", config={}, status="failed", reason="it broke"),
        TrialRecord(key="abcdef1111111111", config={}, status="stopped"),
    ]
    sweep = sweep_of([(80, 10)], others=others)
    whole = sweep.records[0].key
    assert by_key(sweep, whole[:6]).key == by_key(sweep, whole).key == whole
    with pytest.raises(UsageError, match=r"may be abcdef0000000000 or abcdef1111111111; give more of its key"):
        by_key(sweep, "abcdef")
    with pytest.raises(UsageError, match=r"failed \(it broke\), so it has no network to export"):
        by_key(sweep, "abcdef0")
    with pytest.raises(UsageError, match="was stopped by the race"):
        by_key(sweep, "abcdef1")
    with pytest.raises(UsageError, match="no trial's key begins with '123456789'"):
        by_key(sweep, "123456789")
    for short in (whole[:5], ""):
        with pytest.raises(UsageError, match="give at least 6 digits of its key"):
            by_key(sweep, short)


def test_the_nearest_is_named_where_none_meets_the_condition() -> None:
    sweep = sweep_of([(90, 18), (80, 4), (60, 1)])
    keys = [record.key for record in sweep.records]
    for where, key in {
        "accuracy >= 99": keys[0],
        "params <= 0.01": keys[2],
        "params <= 0.25 and accuracy >= 84": keys[1],
    }.items():
        with pytest.raises(UsageError, match=f"no trial of toy meets .*; the nearest is {key}, "):
            best(sweep, where=where)
    assert best(sweep, "drop").key == keys[0]
    assert best(sweep, "params", "drop <= 15").key == keys[1]
    with pytest.raises(UsageError, match="has finished with top-1 accuracy"):
        best(sweep_of([]))
