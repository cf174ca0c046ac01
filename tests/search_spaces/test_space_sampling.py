"""Counting, enumerating, drawing and suggesting: whatever comes out satisfies the space's conditions."""

from __future__ import annotations

import itertools
import math
import pickle
import random
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import TrialConfig
from core.decompositions import DECOMPOSITIONS
from core.errors import UsageError
from search_spaces import SearchSpace, list_spaces, load_space, parse_space, sampling
from search_spaces.axis import Choices, Range
from search_spaces.document import MOST_TRIALS

BASELINE = {"model": "lenet-300-100", "dataset": "digits"}


class FakeTrial:
    """What Optuna's trial does: picks within the limits, and refuses a name asked for with other limits."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.params: dict[str, Any] = {}
        self.asked: dict[str, object] = {}

    def _ask(self, name: str, limits: object, picked: Any) -> Any:
        assert name not in self.asked, f"{name} is asked for twice"
        self.asked[name] = limits
        self.params[name] = picked
        return picked

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        assert all(isinstance(choice, bool | int | float | str) for choice in choices)
        return self._ask(name, tuple(choices), self.rng.choice(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        assert not (log and step != 1)
        return self._ask(name, (low, high, step), self.rng.randrange(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert not (log and step)
        if step is None:
            return self._ask(name, (low, high), self.rng.uniform(low, high))
        picked = low + step * self.rng.randrange(round((high - low) / step) + 1)  # drifts, as Optuna's may
        return self._ask(name, (low, high, step), picked)


def assert_inside(space: SearchSpace, config: TrialConfig) -> None:
    """The configuration takes every value from an axis that counts, and defaults or fixed values elsewhere."""
    values = {**config.model_dump(), **config.options}
    known = DECOMPOSITIONS.get(config.decomposition).model_fields
    for name, axis in space.axes.items():
        condition = space.conditions[name]
        if name.startswith("ratios."):
            counts = name.removeprefix("ratios.") in config.ratios
            value = config.ratios.get(name.removeprefix("ratios."))
        else:
            counts = all(values.get(parent) in allowed for parent, allowed in condition.items())
            value = values.get(name)
        if counts and name not in ("calibration", "calibration_images"):
            assert value in axis, (name, value)
        elif name in TrialConfig.model_fields and not counts:
            assert value == TrialConfig(decomposition=config.decomposition).model_dump()[name]
    assert set(config.options) == set(known)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Spaces with a random choice of axes, nested conditions and fixed values."""
    names = draw(st.lists(st.sampled_from(DECOMPOSITIONS.names()), min_size=1, unique=True))
    axes: dict[str, Any] = {"decomposition": {"values": names}}
    ratios = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    axes["ratio"] = draw(
        st.sampled_from([{"values": [r / 10 for r in ratios]}, {"low": 0.1, "high": 0.5, "step": 0.2}])
    )
    if "most-similar" in names and draw(st.booleans()):
        axes["threshold"] = {"values": [0.1, 0.2], "when": {"ratio": [axes["ratio"].get("values", [0.1])[0]]}}
    if "nmf" in names and draw(st.booleans()):
        axes["rows"] = {"values": ["fixed", "free"]}
        axes["hard"] = {"values": [False, True], "when": {"rows": ["free"]}}
        axes["iterations"] = {"low": 1, "high": 9, "step": 4, "when": {"hard": [True]}}
    if draw(st.booleans()):
        axes["bn_recalibrate"] = {"values": [False, True]}
    if "least-squares" in names or "bn_recalibrate" in axes:
        axes["calibration_images"] = {"low": 1, "high": 4}
        axes["calibration"] = {"values": ["noise", "train-subset"]}
    if draw(st.booleans()):
        axes["allocation"] = {"values": ["uniform", "per-site"]}
        axes["ratios.ip1"] = {"values": [0.5, 0.7]}
    shuffled = draw(st.permutations(list(axes)))
    return {"name": "drawn", "baseline": BASELINE, "axes": {name: axes[name] for name in shuffled}}


@settings(max_examples=60, deadline=None)
@given(documents())
def test_grid_has_exactly_size_different_configurations_that_satisfy_the_conditions(document: dict[str, Any]) -> None:
    space = parse_space(document, "drawn.toml")
    configs = list(space.grid())
    assert space.size() == len(configs) == len({config.key for config in configs})
    for config in configs:
        assert_inside(space, config)
    assert [config.key for config in space.grid()] == [config.key for config in configs]


@settings(max_examples=40, deadline=None)
@given(documents(), st.integers(0, 10**6))
def test_draws_are_different_inside_and_exhaust_the_space(document: dict[str, Any], seed: int) -> None:
    space = parse_space(document, "drawn.toml")
    grid = {config.key for config in space.grid()}
    drawn = [config.key for config in space.random(len(grid) + 5, seed)]
    assert len(drawn) == len(grid)
    assert set(drawn) == grid


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(0, 10**6))
def test_suggested_configurations_are_on_the_grid(document: dict[str, Any], seed: int) -> None:
    space = parse_space(document, "drawn.toml")
    trial = FakeTrial(seed)
    config = space.suggest(trial)
    assert config.key in {c.key for c in space.grid()}
    assert set(trial.asked) <= set(space.axes)
    assert space.config({name: space.axes[name].at(0) for name in space.order if name in trial.asked}) is not None


@settings(max_examples=40, deadline=None)
@given(documents())
def test_a_resolved_space_survives_its_document_pickling_and_an_empty_override(document: dict[str, Any]) -> None:
    space = parse_space(document, "drawn.toml")
    assert parse_space(space.document, "again.toml") == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert space.override({}) == space


@pytest.mark.parametrize("space", list_spaces(), ids=lambda space: space.name)
@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler"])
def test_optuna_itself_accepts_every_bundled_space(space: SearchSpace, sampler: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=getattr(optuna.samplers, sampler)(seed=0))
    for _ in range(15):
        trial = study.ask()
        config = space.suggest(trial)
        assert_inside(space, config)
        study.tell(trial, [1 - config.ratio**2, 1 - config.ratio])


@pytest.mark.parametrize("space", list_spaces(), ids=lambda space: space.name)
def test_bundled_spaces(space: SearchSpace) -> None:
    for config in space.random(40, seed=3):
        assert_inside(space, config)
    for seed in range(20):
        assert_inside(space, space.suggest(FakeTrial(seed)))
    if (space.size() or math.inf) <= MOST_TRIALS:
        assert space.size() == len({config.key for config in space.grid()})


def test_random_is_reproducible_by_seed_and_a_longer_run_begins_like_a_shorter_one() -> None:
    space = load_space("lenet-fashion-mnist")
    keys = [config.key for config in space.random(50, seed=7)]
    assert keys == [config.key for config in space.random(50, seed=7)]
    assert keys[:20] == [config.key for config in space.random(20, seed=7)]
    assert keys != [config.key for config in space.random(50, seed=8)]


def test_random_treats_every_decomposition_alike() -> None:
    space = load_space("vgg-fashion-mnist")
    drawn = Counter(config.decomposition for config in space.random(600, seed=0))
    assert set(drawn) == {"none", "most-similar", "least-squares"}
    # 54 different configurations of plain pruning exist, so repeats make it the rarest
    assert drawn["most-similar"] > 200 < drawn["least-squares"]


def test_the_last_axis_of_the_file_changes_fastest() -> None:
    space = parse_space(
        {"name": "s", "baseline": BASELINE, "axes": {"ratio": {"values": [0.5, 0.1]}, "seed": {"low": 0, "high": 2}}},
        "s.toml",
    )
    got = [(config.ratio, config.seed) for config in space.grid()]
    assert got == [(0.5, 0), (0.5, 1), (0.5, 2), (0.1, 0), (0.1, 1), (0.1, 2)]


def test_steps_do_not_drift() -> None:
    ratios = Range(0.1, 0.9, 0.1)
    assert [ratios.at(i) for i in range(ratios.count or 0)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert all(ratios.suggest("ratio", FakeTrial(seed)) in ratios for seed in range(50))


@pytest.mark.parametrize(
    ("axis", "count"),
    [
        (Range(0.1, 0.9, 0.1), 9),
        (Range(0.0, 1.0, 0.3), 4),
        (Range(1, 10), 10),
        (Range(1, 10, 4), 3),
        (Range(0.3, 0.3), 1),
        (Range(5, 5), 1),
        (Range(0.0, 1.0), None),
        (Range(0.1, 1.0, log=True), None),
        (Range(1, 1000, log=True), 1000),
        (Choices(("a", "b")), 2),
    ],
)
def test_counts_and_draws_of_an_axis(axis: Range | Choices, count: int | None) -> None:
    assert axis.count == count
    rng = random.Random(0)
    for seed in range(200):
        assert axis.sample(rng) in axis
        assert axis.suggest("x", FakeTrial(seed)) in axis


def test_log_ranges_draw_small_numbers_as_often_as_large_ones() -> None:
    rng = random.Random(0)
    for axis in (Range(1, 10_000, log=True), Range(1.0, 10_000.0, log=True)):
        below = sum(axis.sample(rng) < 100 for _ in range(4000))
        assert 1800 < below < 2200


def test_lists_of_patterns_reach_optuna_as_text_and_come_back_as_tuples() -> None:
    axes = {"sites": {"values": [["ip1"], ["ip1", "ip2"]]}, "seed": {"low": 0, "high": 1}}
    space = parse_space({"name": "s", "baseline": BASELINE, "axes": axes}, "s.toml")
    seen = {space.suggest(FakeTrial(seed)).sites for seed in range(20)}
    assert seen == {("ip1",), ("ip1", "ip2")}


def test_size_does_not_enumerate_what_decides_about_nothing() -> None:
    axes = {f"ratios.layer{i}": {"low": 0.1, "high": 0.9, "step": 0.1} for i in range(40)}
    document = {"name": "s", "baseline": BASELINE, "fixed": {"allocation": "per-site"}, "axes": axes}
    space = parse_space({**document, "search": {"samples": 3}}, "s.toml")
    assert space.size() == 9**40
    assert len(list(islice(space.grid(), 3))) == 3
    config = next(space.random(1, 0))
    assert set(config.ratios) == {f"layer{i}" for i in range(40)}


def test_per_site_ratios_only_count_with_that_allocation() -> None:
    space = load_space("vgg16-cifar10")
    by_allocation = {config.allocation: config for config in space.grid()}
    assert by_allocation["uniform"].ratios == {}
    assert by_allocation["per-site"].ratios["feature.0"] == 0.5
    assert space.size() == 3 * (1 + 4 + 1) * (1 + 5)


def test_published_widths_of_vgg16() -> None:
    from core.models import load_model

    ratios = next(c for c in load_space("vgg16-cifar10").grid() if c.allocation == "per-site").ratios
    state = load_model("vgg16").state_dict()
    widths = {name: state[f"{name}.weight"].shape[0] for name in ratios}
    assert all(state[f"{name}.weight"].ndim == 4 for name in ratios)
    assert len(ratios) == sum(w.ndim == 4 for w in state.values()) == 13
    assert [int(widths[n] * (1 - r)) for n, r in ratios.items()] == [32, 64, 128, 128, *[256] * 9]


def test_lenet_space_is_a_grid_of_well_over_100_configurations() -> None:
    space = load_space("lenet-fashion-mnist")
    assert space.size() == space.planned() == 9 * (3 * (1 + 4 + 4 + 2) + (1 + 4 + 4 + 2 * 2))
    assert {c.decomposition for c in space.grid()} == {"none", "most-similar", "nmf", "least-squares"}
    assert {c.options.get("threshold") for c in space.grid()} >= {0.45}


FINE = """
[baseline]
model = "lenet-300-100"
dataset = "digits"
[search]
samples = 10
[axes]
ratio = { low = 0.1, high = 0.9, step = 1e-5 }
criterion = { values = ["l1", "l2", "geometric-median"] }
decomposition = { values = ["none", "most-similar", "nmf"] }
seed = { values = [1, 2], when = { ratio = [0.5, 0.6], criterion = ["l1"] } }
"""


@pytest.mark.parametrize("name", [s.name for s in list_spaces() if (s.size() or math.inf) <= MOST_TRIALS])
def test_size_is_the_number_of_assignments(name: str) -> None:
    space = load_space(name)
    assert space.size() == sum(1 for _ in sampling.assignments(space, space.order))


def test_size_of_a_fine_axis_that_decides_about_others(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space({"name": "s", **tomllib.loads(FINE)}, "s.toml")
    coarse = parse_space({"name": "s", **tomllib.loads(FINE.replace("1e-5", "0.1"))}, "s.toml")
    assert coarse.size() == sum(1 for _ in coarse.grid())
    monkeypatch.setattr(Range, "at", limited(Range.at, 100))
    assert space.size() == 80_001 * 9 + 2 * 3  # at 0.5 and 0.6, two seeds instead of none for l1
    assert len(list(islice(space.grid(), 10))) == 10


def limited(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    """The function, which fails when it is called more often than that."""
    calls = itertools.count(1)

    def called(*arguments: Any) -> Any:
        assert next(calls) <= most, "it is enumerated"
        return function(*arguments)

    return called


def test_a_large_space_is_drawn_without_being_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space({"name": "s", **tomllib.loads(FINE)}, "s.toml")
    monkeypatch.setattr(Range, "at", limited(Range.at, 2500))
    assert len({config.key for config in space.random(1000, 0)}) == 1000


def test_the_rest_of_a_large_space_comes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("digits-quick")
    monkeypatch.setattr(sampling, "PATIENCE", 1)
    monkeypatch.setattr(sampling, "MOST_TRIALS", 10)
    assert len({config.key for config in space.random(100, 0)}) == space.size() == 32


def test_a_grid_that_is_too_fine_is_refused() -> None:
    document = {"name": "s", **tomllib.loads(FINE.replace("samples = 10", ""))}
    with pytest.raises(UsageError, match=r"s\.toml: axes: the grid has 720,015 configurations, over 100,000: "):
        parse_space(document, "s.toml")
    document["search"] = {"algorithm": "random"}
    assert parse_space(document, "s.toml").planned() == 100
