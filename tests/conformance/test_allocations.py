"""A kit that every allocation passes: a ratio within bounds for each channel set, and always the same ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.allocation import ALLOCATIONS

NAMES = ("per-site", "uniform")
shares = st.floats(0.0, 0.99)
producers = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=2, unique=True).map(tuple), max_size=6)
patterns = st.dictionaries(st.sampled_from(["a", "b*", "[cd]", "nowhere"]), shares, max_size=3)


def scores(sets: list[tuple[str, ...]]) -> list[torch.Tensor]:
    return [torch.rand(4 + number, generator=torch.Generator().manual_seed(number)) for number in range(len(sets))]


def test_the_table_is_complete() -> None:
    assert tuple(ALLOCATIONS.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
@given(producers, shares, patterns)
def test_each_set_gets_a_ratio_within_bounds(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float]
) -> None:
    found = ALLOCATIONS.get(name)(sets, scores(sets), ratio, ratios)
    assert len(found) == len(sets)
    assert all(0 <= share < 1 for share in found)


@pytest.mark.parametrize("name", NAMES)
@given(producers, shares, patterns)
def test_it_is_always_the_same_and_nothing_is_changed(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float]
) -> None:
    given_scores = scores(sets)
    before = [score.clone() for score in given_scores]
    state = torch.get_rng_state()
    first = ALLOCATIONS.get(name)(sets, given_scores, ratio, dict(ratios))
    assert first == ALLOCATIONS.get(name)(sets, given_scores, ratio, dict(ratios))
    assert all(torch.equal(a, b) for a, b in zip(before, given_scores, strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
@given(producers, shares, patterns, st.randoms(use_true_random=False))
def test_the_order_of_the_sets_does_not_matter(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float], draw: object
) -> None:
    order = list(range(len(sets)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    plain, made = ALLOCATIONS.get(name), scores(sets)
    shuffled = plain([sets[i] for i in order], [made[i] for i in order], ratio, ratios)
    straight = plain(sets, made, ratio, ratios)
    assert shuffled == [straight[i] for i in order]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_removed_at_ratio_0(name: str) -> None:
    sets = [("a",), ("b", "c")]
    assert ALLOCATIONS.get(name)(sets, scores(sets), 0.0, {}) == [0.0, 0.0]


def test_a_pattern_sets_its_own_sets_only() -> None:
    sets = [("layer1.conv1",), ("layer2.conv1", "layer2.conv2"), ("fc",)]
    assert ALLOCATIONS.get("per-site")(sets, scores(sets), 0.5, {"*conv2": 0.2, "layer*": 0.1}) == [0.1, 0.2, 0.5]
