"""A kit that every search algorithm passes: ask, tell, window, resume, warm start, exhaustion."""

from __future__ import annotations

import random

import pytest

from core.config import TrialConfig
from core.records import TrialRecord
from search_spaces import SearchSpace, parse_space
from search_spaces.algorithms import ALGORITHMS
from sweep.search.base import LAG, TAKEN_FROM, Plan, Planner, make_planner

NAMES = ("grid", "nsga2", "random", "tpe")
LEARNING = ("nsga2", "tpe")


def space_of(algorithm: str, samples: int = 60) -> SearchSpace:
    return parse_space(
        {
            "name": "toy",
            "baseline": {"model": "lenet-300-100", "dataset": "digits"},
            "search": {"algorithm": algorithm, "samples": samples},
            "axes": {
                "ratio": {"low": 0.1, "high": 0.9, "step": 0.1},
                "criterion": {"values": ["l1", "l2"]},
                "decomposition": {"values": ["none", "most-similar"]},
                "threshold": {"values": [0.2, 0.45, 0.6], "when": {"decomposition": ["most-similar"]}},
            },
        },
        "toy.toml",
    )


def result_of(config: TrialConfig) -> TrialRecord:
    bonus = 10 if config.decomposition == "most-similar" else 0
    sizes = {f"{name}_fraction": 1 - config.ratio for name in ("params", "macs", "bytes")}
    metrics = {"accuracy": 90 - 60 * config.ratio**2 + bonus * config.ratio, **sizes}
    return TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics)


def failure_of(config: TrialConfig) -> TrialRecord:
    return TrialRecord(key=config.key, config=config.as_json(), status="failed", reason="not finite")


def taken(record: TrialRecord) -> TrialRecord:
    return record.model_copy(update={"provenance": {TAKEN_FROM: "earlier"}})


def search(planner: Planner, seed: int, under_way: int) -> list[str]:
    """Run a planner with so many configurations under way at once, whose results come in random order."""
    draw = random.Random(seed)
    handed: list[str] = []
    running: list[TrialConfig] = []
    while True:
        while len(running) < under_way and (config := planner.ask()) is not None:
            handed.append(config.key)
            running.append(config)
        if not running:
            return handed
        planner.tell(result_of(running.pop(draw.randrange(len(running)))))


def test_the_table_is_complete() -> None:
    assert tuple(ALGORITHMS.names()) == NAMES
    assert tuple(n for n in NAMES if make_planner(Plan(space_of(n), 0)).window is not None) == LEARNING


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_configuration_is_handed_out_once_and_there_are_as_many_as_promised(algorithm: str) -> None:
    planner = make_planner(Plan(space_of(algorithm, samples=50), 3))
    assert not planner.exhausted
    handed = search(planner, 0, 3)
    assert len(handed) == len(set(handed)) == planner.total == 50
    assert planner.exhausted
    assert planner.ask() is None
    assert set(handed) <= {config.key for config in space_of(algorithm).grid()}


@pytest.mark.parametrize("algorithm", NAMES)
def test_no_more_is_under_way_than_the_window(algorithm: str) -> None:
    planner = make_planner(Plan(space_of(algorithm), 3, lag=5))
    handed: list[TrialConfig] = []
    while len(handed) < 60 and (config := planner.ask()) is not None:
        handed.append(config)
    assert len(handed) == (60 if planner.window is None else planner.window)
    assert planner.exhausted == (planner.window is None)
    planner.tell(result_of(handed[0]))
    assert (planner.ask() is None) == (planner.window is None)


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_search_is_the_same_whatever_worker_is_faster(algorithm: str) -> None:
    space = space_of(algorithm)
    ways = ((0, 1), (1, 4), (2, LAG))
    runs = [search(make_planner(Plan(space, seed=3)), seed, under_way) for seed, under_way in ways]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == len(set(runs[0])) == 60
    if algorithm != "grid":
        assert runs[0] != search(make_planner(Plan(space, seed=4)), 0, 1)


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_search_goes_on_where_it_was(algorithm: str) -> None:
    space = space_of(algorithm, samples=50)
    whole = search(make_planner(Plan(space, 7)), 0, 2)
    known = [result_of(config) for config in space.grid() if config.key in set(whole[:30])]
    assert search(make_planner(Plan(space, 7, known)), 5, 2) == whole[30:]


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_search_that_is_done_is_exhausted_from_the_start(algorithm: str) -> None:
    space = space_of(algorithm, samples=20)
    done = search(make_planner(Plan(space, 7)), 0, 2)
    planner = make_planner(Plan(space, 7, [result_of(c) for c in space.grid() if c.key in set(done)]))
    assert planner.ask() is None
    assert planner.exhausted
    assert planner.total == 20


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_warm_start_hands_out_nothing_that_is_known(algorithm: str) -> None:
    space = space_of(algorithm, samples=20)
    earlier = [taken(result_of(config)) for config in list(space.grid())[:30]]
    planner = make_planner(Plan(space, 1, earlier))
    handed = search(planner, 0, 2)
    assert len(handed) == 20
    assert not set(handed) & {record.key for record in earlier}
    assert planner.total == 50
    again = make_planner(Plan(space, 1, [*earlier, *(result_of(c) for c in space.grid() if c.key in set(handed[:9]))]))
    assert search(again, 3, 2) == handed[9:]


@pytest.mark.parametrize("algorithm", NAMES)
def test_records_of_parts_that_are_gone_disturb_nobody(algorithm: str) -> None:
    space = space_of(algorithm, samples=20)
    (config,) = space.random(1, 0)
    gone = result_of(config).model_copy(
        update={"key": "gone", "config": {**config.as_json(), "decomposition": "folded"}}
    )
    planner = make_planner(Plan(space, 1, [gone, taken(gone.model_copy(update={"key": "gone too"}))]))
    handed = search(planner, 0, 2)
    assert len(handed) == 20
    assert handed == search(make_planner(Plan(space, 1)), 0, 2)


@pytest.mark.parametrize("algorithm", NAMES)
def test_hints_come_first(algorithm: str) -> None:
    space = space_of(algorithm, samples=20)
    hints = [list(space.grid())[number] for number in (50, 7, 31)]
    handed = search(make_planner(Plan(space, 1, hints=hints)), 0, 2)
    assert handed[:3] == [config.key for config in hints]
    assert len(handed) == len(set(handed)) == 20


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_search_can_see_everything(algorithm: str) -> None:
    space = space_of(algorithm, samples=1000)
    assert space.size() == 72
    handed = search(make_planner(Plan(space, 0)), 0, 2)
    assert set(handed) == {config.key for config in space.grid()}
    assert len(handed) == 72


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_failed_trial_does_not_stop_the_search(algorithm: str) -> None:
    planner = make_planner(Plan(space_of(algorithm, samples=40), seed=0))
    for number in range(40):
        config = planner.ask()
        assert config is not None
        planner.tell(failure_of(config) if number % 3 == 0 else result_of(config))
    assert planner.exhausted


@pytest.mark.parametrize("algorithm", NAMES)
def test_what_is_told_makes_rivals(algorithm: str) -> None:
    planner = make_planner(Plan(space_of(algorithm, samples=40), seed=0, lag=1))
    assert planner.rivals == ()
    search(planner, 0, 1)
    assert planner.rivals
    assert all(rival.sizes for rival in planner.rivals)


@pytest.mark.parametrize("algorithm", NAMES)
def test_any_known_metric_can_be_an_objective(algorithm: str) -> None:
    space = space_of(algorithm, samples=12).override({"search.objectives": "{ loss = 'min', macs_fraction = 'min' }"})
    planner = make_planner(Plan(space, seed=0))
    assert len(search(planner, 0, 2)) == 12


def test_a_race_takes_a_list_in_random_order() -> None:
    space = space_of("grid", samples=72)
    plain, raced = (search(make_planner(Plan(space, 5, race=race)), 0, 2) for race in (False, True))
    assert plain != raced
    assert sorted(plain) == sorted(raced)
    assert raced == search(make_planner(Plan(space, 5, race=True)), 3, 7)


def test_a_warm_start_is_what_the_sampler_learns_from() -> None:
    """Told that merging is better everywhere, TPE asks for it from the first draw on."""
    space = space_of("tpe", samples=12)
    earlier = [taken(result_of(config)) for config in list(space.grid())[::2]]
    planner = make_planner(Plan(space, 1, earlier))
    assert len(planner._study.get_trials(deepcopy=False)) == len(earlier)  # type: ignore[attr-defined]
    cold = set(search(make_planner(Plan(space, 1)), 0, 1))
    assert set(search(planner, 0, 1)) != cold
