"""A list of configurations is made as far as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from sweep_records import record_of

from core.config import TrialConfig
from core.records import TrialRecord
from search_spaces import SearchSpace, load_space
from sweep.search.base import TAKEN_FROM, Plan, Planner, make_planner
from sweep.search.listed import LISTED

FEATURES = (0, 4, 7, 11, 14, 18, 21)


def fine(algorithm: str, samples: int = 10) -> SearchSpace:
    changes = {"ratio": "{ low = 0.1, high = 0.9, step = 1e-5 }", "search.algorithm": algorithm}
    return load_space("lenet-fashion-mnist").override({**changes, "search.samples": str(samples)})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each configuration that is made."""
    made: list[int] = []
    parse = TrialConfig.parse

    def counted(*arguments: Any, **named: Any) -> TrialConfig:
        made.append(1)
        return parse(*arguments, **named)

    monkeypatch.setattr(TrialConfig, "parse", counted)
    return made


@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe", "nsga2"])
def test_a_fine_grid_is_not_made_for_ten_samples(algorithm: str, made: list[int]) -> None:
    space = fine(algorithm)
    planner = make_planner(Plan(space, seed=0))
    asked = [planner.ask() for _ in range(10)]
    assert None not in asked
    assert planner.total == len({config.key for config in asked if config}) == 10
    assert len(made) <= 20


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_a_long_list_is_made_while_its_trials_run(algorithm: str, made: list[int]) -> None:
    planner = make_planner(Plan(fine(algorithm, 1_000_000), seed=0))
    size = fine(algorithm).size()
    assert size is not None
    assert planner.total == min(1_000_000, size) > LISTED
    assert len({config.key for config in (planner.ask() for _ in range(10)) if config}) == 10
    assert not planner.exhausted
    assert len(made) <= 20


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_a_long_list_is_gone_on_with_and_comes_to_its_end(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same configurations in the same order as a short one, known and hinted ones included."""
    space = load_space("digits-quick", {"search.algorithm": algorithm, "search.samples": "30"})
    hints = list(space.grid())[-2:]
    first = asked(make_planner(Plan(space, seed=0, hints=hints)))
    known = [record_of(config) for config in first[:7]]
    short = make_planner(Plan(space, seed=0, hints=hints, known=known))
    monkeypatch.setattr("sweep.search.listed.LISTED", 5)
    long = make_planner(Plan(space, seed=0, hints=hints, known=known))
    assert short.total == long.total == len(first) == 30
    assert asked(short) == asked(long) == first[7:]
    assert short.exhausted
    assert long.exhausted


def asked(planner: Planner) -> list[TrialConfig]:
    """Everything that a planner hands out."""
    found = []
    while (config := planner.ask()) is not None:
        found.append(config)
    return found


def test_hints_come_first_and_count_once() -> None:
    space = load_space("digits-quick")
    hints = list(space.grid())[-2:]
    planner = make_planner(Plan(space, seed=0, hints=hints))
    order = [planner.ask() for _ in range(planner.total)]
    assert order[:2] == hints
    assert len({config.key for config in order if config}) == planner.total == 32


@pytest.mark.parametrize("how", ["hints", "taken over"])
def test_what_nsga2_begins_with_has_children(how: str) -> None:
    """Equal ratios are the best by far here: the searches that begin with some come to more of them."""
    steps = {f"ratios.feature.{i}": "{ low = 0.0, high = 0.9, step = 0.1 }" for i in FEATURES}
    space = load_space("per-layer-nsga2", {**steps, "search.samples": "120"})
    begins = [space.config({f"ratios.feature.{i}": v for i in FEATURES}) for v in (0.2, 0.4, 0.6, 0.8)]

    def record(config: TrialConfig) -> TrialRecord:
        ratios = list(config.ratios.values())
        left, apart = 1 - sum(ratios) / len(ratios), max(ratios) - min(ratios)
        same = record_of(config.model_copy(update={"ratio": 1 - left}), accuracy=90 * (1 - apart) * left**0.1)
        return same.model_copy(update={"key": config.key, "config": config.as_json()})

    def apart(**begun: Any) -> float:
        """How unequal the last ratios of three searches are."""
        late = []
        for seed in range(3):
            planner, found = make_planner(Plan(space, seed, **begun)), list[TrialConfig]()
            while (config := planner.ask()) is not None:
                planner.tell(record(config))
                found.append(config)
            late += [config.ratios.values() for config in found[-40:]]
        return sum(max(r) - min(r) for r in late) / len(late)

    known = [record(c).model_copy(update={"provenance": {TAKEN_FROM: "earlier"}}) for c in begins]
    begun: dict[str, Any] = {"hints": begins} if how == "hints" else {"known": known}
    assert apart(**begun) < apart() - 0.05
