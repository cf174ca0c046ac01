"""A kit that every allocation passes: a ratio within bounds for each channel set, and always the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.allocation import ALLOCATIONS, AllocatedSet, AllocationRequest
from core.errors import UsageError

NAMES = ("budget", "global", "per-site", "uniform")
shares = st.floats(0.0, 0.7)
producers = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=2, unique=True).map(tuple), min_size=1, max_size=6
)
patterns = st.dictionaries(st.sampled_from(["a", "b*", "[cd]", "nowhere"]), shares, max_size=3)


@dataclass
class Priced:
    """What a budget asks for, of sets that do not touch: each channel of set i costs i + 1 parameters."""

    sizes: Sequence[int]
    scores: Sequence[torch.Tensor]

    @property
    def steps(self) -> list[int]:
        return [1] * len(self.sizes)

    @property
    def effects(self) -> list[float]:
        return [1.0] * len(self.sizes)

    @property
    def curves(self) -> list[np.ndarray]:
        return [np.concatenate([[0.0], own.sort().values.cumsum(0).numpy()]) for own in self.scores]

    @property
    def whole(self) -> float:
        return self.at(self.widths)

    @property
    def widths(self) -> np.ndarray:
        return np.array(self.sizes)

    def footprint(self, of: str) -> Priced:
        return self

    def at(self, widths: np.ndarray) -> float:
        return float(sum((i + 1) * w for i, w in enumerate(widths)))

    def along(self, number: int, widths: np.ndarray) -> tuple[float, float, float]:
        rest = self.at(widths) - (number + 1) * float(widths[number])
        return rest, number + 1.0, 0.0

    def divergence(self, widths: np.ndarray) -> float:
        return float(np.abs(widths / self.widths - 0.5).sum())


def requested(
    sets: list[tuple[str, ...]], ratio: float, ratios: Mapping[str, float], **options: Any
) -> AllocationRequest:
    scores = [
        torch.rand(4 + len(names[0]) + 3 * number, generator=torch.Generator().manual_seed(number)).double()
        for number, names in enumerate(sets)
    ]
    made = [AllocatedSet(names, len(own), own) for names, own in zip(sets, scores, strict=True)]
    appraisal: Any = Priced([own.size for own in made], scores)
    usual: dict[str, Any] = {"of": "params", "sharpness": "auto", "min_channels": 1, "multiple": 1}
    return AllocationRequest(sets=made, ratio=ratio, ratios=ratios, appraise=lambda: appraisal, **{**usual, **options})


def test_the_table_is_complete() -> None:
    assert tuple(ALLOCATIONS.names()) == NAMES
    assert [name for name, part in ALLOCATIONS.items() if part.needs_calibration] == ["budget"]


@pytest.mark.parametrize("name", NAMES)
@given(producers, shares, patterns)
def test_each_set_gets_a_ratio_within_bounds(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float]
) -> None:
    found = ALLOCATIONS.get(name).spread(requested(sets, ratio, ratios))
    assert len(found) == len(sets)
    assert all(0 <= share < 1 for share in found)


@pytest.mark.parametrize("name", NAMES)
@given(producers, shares, patterns)
def test_it_is_always_the_same_and_nothing_is_changed(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float]
) -> None:
    request = requested(sets, ratio, ratios)
    before = [own.scores.clone() for own in request.sets]
    state = torch.get_rng_state()
    first = ALLOCATIONS.get(name).spread(request)
    assert first == ALLOCATIONS.get(name).spread(requested(sets, ratio, dict(ratios)))
    assert all(torch.equal(a, own.scores) for a, own in zip(before, request.sets, strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["per-site", "uniform"])
@given(producers, shares, patterns, st.randoms(use_true_random=False))
def test_the_order_of_the_sets_does_not_matter(
    name: str, sets: list[tuple[str, ...]], ratio: float, ratios: dict[str, float], draw: object
) -> None:
    order = list(range(len(sets)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    spread = ALLOCATIONS.get(name).spread
    shuffled = spread(requested([sets[i] for i in order], ratio, ratios))
    straight = spread(requested(sets, ratio, ratios))
    assert shuffled == [straight[i] for i in order]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_removed_at_ratio_0(name: str) -> None:
    assert ALLOCATIONS.get(name).spread(requested([("a",), ("b", "c")], 0.0, {})) == [0.0, 0.0]


def test_a_pattern_sets_its_own_sets_only() -> None:
    sets = [("layer1.conv1",), ("layer2.conv1", "layer2.conv2"), ("fc",)]
    request = requested(sets, 0.5, {"*conv2": 0.2, "layer*": 0.1})
    assert ALLOCATIONS.get("per-site").spread(request) == [0.1, 0.2, 0.5]


@given(producers, shares)
def test_global_removes_its_share_of_all_channels(sets: list[tuple[str, ...]], ratio: float) -> None:
    request = requested(sets, ratio, {})
    found = ALLOCATIONS.get("global").spread(request)
    total = sum(own.size for own in request.sets)
    gone = round(sum(share * own.size for share, own in zip(found, request.sets, strict=True)))
    assert round(ratio * total) - len(sets) <= gone <= round(ratio * total)


@given(producers, shares, st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3), st.integers(1, 3))
def test_a_budget_is_met_and_used_up(
    sets: list[tuple[str, ...]], ratio: float, sharpness: float, multiple: int, least: int
) -> None:
    request = requested(sets, ratio, {}, sharpness=sharpness, multiple=multiple, min_channels=least)
    priced: Any = request.appraise()
    smallest = np.array([min(own.size, multiple * -(-least // multiple)) for own in request.sets])
    if priced.at(smallest) > (1 - ratio) * priced.whole:
        with pytest.raises(UsageError, match="cannot be reached"):
            ALLOCATIONS.get("budget").spread(request)
        return
    found = ALLOCATIONS.get("budget").spread(request)
    widths = np.array([round(own.size * (1 - share)) for own, share in zip(request.sets, found, strict=True)])
    limit = (1 - ratio) * priced.whole
    assert priced.at(widths) <= limit + 1e-6
    for number, own in enumerate(request.sets):
        w = int(widths[number])
        assert w == own.size or (w % multiple == 0 and w >= least)
        more = widths.copy()
        more[number] = min(own.size, w - w % multiple + multiple)
        assert w == own.size or priced.at(more) > limit, "another step would have fitted"


@given(producers, st.floats(0.2, 0.6))
def test_a_sharp_budget_costs_no_more_than_a_uniform_one(sets: list[tuple[str, ...]], ratio: float) -> None:
    cost = {}
    for sharpness in (0.0, 1.0):
        request = requested(sets, ratio, {}, sharpness=sharpness)
        priced: Any = request.appraise()
        found = ALLOCATIONS.get("budget").spread(request)
        gone = [round(own.size * share) for own, share in zip(request.sets, found, strict=True)]
        cost[sharpness] = sum(float(curve[m]) for curve, m in zip(priced.curves, gone, strict=True))
    assert cost[1.0] <= cost[0.0] * 1.05 + 1e-9
