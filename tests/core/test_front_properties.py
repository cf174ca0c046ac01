"""Fronts and hypervolumes agree with an independent library's: on random, tied, repeated and extreme points."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.pareto import hypervolume, pareto_front

Pair = tuple[float, float]
X, Y = "params_fraction", "accuracy"
SIGNS = np.array([1.0, -1.0])
"""A smaller x is better, and a larger y."""


@dataclass(frozen=True)
class Point:
    metrics: dict[str, float]
    number: int


def points(pairs: Sequence[Pair]) -> list[Point]:
    return [Point({X: x, Y: y}, number) for number, (x, y) in enumerate(pairs)]


def array(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def front(pairs: Sequence[Pair]) -> list[int]:
    return [point.number for point in pareto_front(points(pairs), X, Y)]


def area(pairs: Sequence[Pair], reference: Pair) -> float:
    return hypervolume(points(pairs), X, Y, reference)


def their_front(pairs: Sequence[Pair]) -> list[int]:
    """By increasing x."""
    found = np.flatnonzero(moocore.is_nondominated(array(pairs) * SIGNS, keep_weakly=False)).tolist()
    return sorted(found, key=lambda number: pairs[number][0])


def their_area(pairs: Sequence[Pair], reference: Pair) -> float:
    return float(moocore.hypervolume(array(pairs) * SIGNS, ref=np.array(reference) * SIGNS))


ANY = st.floats(0.0, 1.0)
TIED = st.integers(0, 4).map(lambda v: v / 4)
HUGE = st.sampled_from([0.0, -0.0, 5e-324, sys.float_info.min, 1e-300, 1e300, sys.float_info.max]) | st.floats(
    allow_nan=False, allow_infinity=False
)
KINDS = {"random": ANY, "tied": TIED, "tied or random": ANY | TIED, "extreme": HUGE}


def sets(values: st.SearchStrategy[float], size: int = 60) -> st.SearchStrategy[list[Pair]]:
    """Sets of points, many of which are there twice."""
    some = st.lists(st.tuples(values, values), min_size=1, max_size=size)
    return st.builds(
        lambda one, two: one + [one[n % len(one)] for n in two], some, st.lists(st.integers(0), max_size=9)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_front(kind: str) -> None:
    @given(sets(KINDS[kind]))
    @example([(0.0, 0.0)])
    @example([(0.5, 0.5), (0.5, 0.5), (0.5, 0.4), (0.4, 0.5)])
    @example([(0.0, -0.0), (-0.0, 0.0), (0.0, 0.0)])
    def check(pairs: list[Pair]) -> None:
        assert front(pairs) == their_front(pairs)

    check()


@pytest.mark.parametrize("kind", ["random", "tied", "tied or random"])
def test_the_hypervolume(kind: str) -> None:
    """Points outside the reference, and on its edges, too."""
    inside = KINDS[kind]

    @given(sets(inside), st.just((1.0, 0.0)) | st.tuples(inside, inside))
    @example([(0.25, 0.5)], (1.0, 0.0))
    @example([(0.25, 0.5)], (0.25, 0.0))
    @example([(0.25, 0.5)], (0.2, 0.6))
    def check(pairs: list[Pair], reference: Pair) -> None:
        assert area(pairs, reference) == pytest.approx(their_area(pairs, reference), rel=1e-12, abs=1e-15)

    check()


@given(sets(st.floats(0.0, 1.0), size=20), st.integers(-900, 900))
def test_the_hypervolume_at_any_scale(pairs: list[Pair], exponent: int) -> None:
    """From 1e-271 to 1e271: the area follows x, and nothing is lost or overflows."""
    wide = [(math.ldexp(x, exponent), y) for x, y in pairs]
    reference = (math.ldexp(1.0, exponent), 0.0)
    assert area(wide, reference) == pytest.approx(their_area(wide, reference), rel=1e-12, abs=1e-15 * reference[0])


def test_many_points_on_one_front() -> None:
    rng = np.random.default_rng(0)
    for steps in (10, 100, 10_000):
        pairs = [(float(x), float(y)) for x, y in rng.integers(0, steps, (5_000, 2)) / steps]
        assert front(pairs) == their_front(pairs)
        assert area(pairs, (1.0, 0.0)) == pytest.approx(their_area(pairs, (1.0, 0.0)), rel=1e-12)
    curve = [(k / 5_000, math.sqrt(k / 5_000)) for k in range(5_000)]
    assert front(curve) == their_front(curve) == list(range(5_000))
