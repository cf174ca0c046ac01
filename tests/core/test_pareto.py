"""Fronts and hypervolumes against slow oracles, on random and on adversarial point sets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pareto import hypervolume, pareto_front, smallest
from tests import oracle


@dataclass(frozen=True)
class Point:
    metrics: dict[str, float]
    number: int


def points(pairs: list[tuple[float, float]]) -> list[Point]:
    return [Point({"params_fraction": x, "accuracy": y}, i) for i, (x, y) in enumerate(pairs)]


coarse = st.tuples(st.integers(0, 5).map(lambda v: v / 5), st.integers(0, 6).map(lambda v: v * 15.0))


@given(st.lists(coarse, max_size=25))
def test_front_equals_the_definition(pairs: list[tuple[float, float]]) -> None:
    front = pareto_front(points(pairs))
    assert {p.number for p in front} == oracle.front(pairs)
    sizes = [p.metrics["params_fraction"] for p in front]
    assert sizes == sorted(sizes)


@given(st.lists(coarse, max_size=12))
def test_hypervolume_equals_counting_cells(pairs: list[tuple[float, float]]) -> None:
    assert hypervolume(points(pairs)) == pytest.approx(oracle.hypervolume(pairs, (1.0, 0.0)), abs=1.5)


@given(st.lists(coarse, max_size=12), coarse)
def test_another_point_never_lowers_the_hypervolume(pairs: list[tuple[float, float]], one: tuple[float, float]) -> None:
    assert hypervolume(points([*pairs, one])) >= hypervolume(points(pairs)) - 1e-9


def test_values_by_hand() -> None:
    assert hypervolume(points([(0.25, 80.0)])) == 0.75 * 80
    assert hypervolume(points([(0.25, 80.0), (0.5, 90.0)])) == 0.75 * 80 + 0.5 * 10
    assert hypervolume(points([(1.0, 99.0)])) == 0.0
    assert hypervolume([]) == 0.0


def test_records_without_the_metrics_are_left_out() -> None:
    failed = Point({}, 1)
    good = points([(0.5, 50.0)])[0]
    assert pareto_front([failed, good]) == [good]
    assert pareto_front([failed]) == []


def test_of_sizes_as_good_as_equal_the_most_accurate_is_the_smallest() -> None:
    least, better, larger, half = points([(0.3000, 89.70), (0.3001, 90.84), (0.31, 91.5), (0.5, 80.0)])
    assert smallest([larger, least, better]) is better
    assert smallest([larger, least]) is least
    assert smallest([half, larger]) is larger


def test_the_smallest_of_damaged_sizes_is_one_of_them() -> None:
    records = points([(-2.0, 50.0), (0.5, 50.0)])
    assert smallest(records) is records[0]
