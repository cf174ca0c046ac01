"""Batches, retries and planners, without Ray."""

from __future__ import annotations

import random

import pytest
from sweep_records import record_of

from core.config import TrialConfig
from search_spaces import parse_space
from sweep.backend.deadline import hard_limit
from sweep.backend.workqueue import ATTEMPTS, BATCH_LIMIT, RACE_BATCH, WorkQueue
from sweep.search.base import LAG, TAKEN_FROM, Plan, Planner, make_planner
from sweep.search.listed import ListPlanner


def configs(count: int) -> list[TrialConfig]:
    return [TrialConfig(ratio=number / (count + 1)) for number in range(count)]


def drain(queue: WorkQueue, fate=lambda config: "") -> list[int]:
    """Run the queue as one worker would; ``fate`` says why a configuration kills its worker. Returns batch sizes."""
    sizes, number = [], 0
    while not queue.finished:
        number += 1
        name = f"b{number}"
        batch = queue.next_batch(name)
        assert batch, "nothing handed out, nothing running, and yet not finished"
        sizes.append(len(batch))
        for task in batch:
            if why := fate(task.config):
                queue.ended(name, why)
                break
            queue.returned(name, [record_of(task.config)])
        else:
            queue.ended(name)
    return sizes


def test_every_configuration_is_recorded_once():
    records = []
    queue = WorkQueue(ListPlanner(configs(100)), 2, records.append, trial_seconds=0.05)
    sizes = drain(queue)
    assert sorted(r.ratio for r in records) == [c.ratio for c in configs(100)]
    assert 1 < max(sizes) <= BATCH_LIMIT
    assert sizes[-1] == 1  # small batches at the end, so that all workers finish together


def test_long_trials_go_alone():
    queue = WorkQueue(ListPlanner(configs(20)), 2, lambda record: None, trial_seconds=60.0)
    assert len(queue.next_batch("a")) == 1


def test_no_more_batches_than_workers():
    queue = WorkQueue(ListPlanner(configs(100)), 2, lambda record: None, trial_seconds=1.0)
    assert queue.next_batch("a")
    assert queue.next_batch("b")
    assert queue.next_batch("c") is None
    queue.ended("a")
    assert queue.next_batch("c")


def test_one_that_kills_its_worker_harms_no_other():
    records = []
    queue = WorkQueue(ListPlanner(configs(60)), 2, records.append, trial_seconds=0.05)
    bad = configs(60)[3]
    drain(queue, lambda config: "the worker process died" if config == bad else "")
    assert len({r.key for r in records}) == len(records) == 60
    failed = [r for r in records if r.status == "failed"]
    assert [r.key for r in failed] == [bad.key]
    assert failed[0].reason == f"the worker process died ({ATTEMPTS} attempts)"


def test_a_worker_killed_once_costs_nothing():
    records, deaths = [], iter([True])
    queue = WorkQueue(ListPlanner(configs(30)), 2, records.append, trial_seconds=0.05)
    drain(queue, lambda config: "killed" if next(deaths, False) else "")
    assert len(records) == 30
    assert all(r.status == "finished" for r in records)


def test_a_record_that_comes_twice_counts_once():
    records = []
    queue = WorkQueue(ListPlanner(configs(2)), 1, records.append, trial_seconds=60.0)
    (task,) = queue.next_batch("a")
    queue.returned("a", [record_of(task.config)])
    queue.returned("a", [record_of(task.config)])
    assert len(records) == 1


def test_dying_in_company_is_no_attempt():
    """A batch dies, then one of it alone, twice: that is two attempts, so it is tried once more."""
    records = []
    queue = WorkQueue(ListPlanner(configs(40)), 2, records.append, trial_seconds=0.05)
    batch = queue.next_batch("all")
    assert len(batch) > 1
    queue.ended("all", "killed")
    deaths = {batch[0].config.key: ATTEMPTS - 1}

    def fate(config: TrialConfig) -> str:
        deaths[config.key] = deaths.get(config.key, 0) - 1
        return "killed" if deaths[config.key] >= 0 else ""

    drain(queue, fate)
    assert {r.status for r in records} == {"finished"}


def test_workers_that_only_die_are_hopeless():
    queue = WorkQueue(ListPlanner(configs(30)), 2, lambda record: None, trial_seconds=0.05)
    for number in range(10):
        assert not queue.hopeless
        queue.next_batch(str(number))
        queue.ended(str(number), "cannot start")
    assert queue.hopeless


def test_known_configurations_are_not_run_again():
    known = [record_of(config) for config in configs(10)[:4]]
    planner = ListPlanner(configs(10) + configs(10), known)
    handed = []
    while (config := planner.ask()) is not None:
        handed.append(config)
    assert handed == configs(10)[4:]
    assert planner.exhausted
    assert planner.total == 10


def test_a_worker_that_dies_at_the_end_of_its_time_is_not_tried_again(monkeypatch):
    records = []
    queue = WorkQueue(ListPlanner(configs(2)), 2, records.append, trial_seconds=60.0, limit=10.0)
    clock = iter([0.0, 100.0, 100.0 + 0.9 * hard_limit(10.0), 200.0, 201.0 + hard_limit(10.0)])
    monkeypatch.setattr("sweep.backend.workqueue.time.monotonic", lambda: next(clock))
    queue.next_batch("a")
    queue.next_batch("b")
    queue.ended("b", "killed")  # before its time was over: it gets another chance
    assert not records
    queue.next_batch("c")
    queue.ended("c", "killed")
    (record,) = records
    assert record.status == "failed"
    assert record.reason == "it took longer than 10 s (--trial-timeout) and its worker had to be killed"


def test_batches_end_small_when_most_is_known():
    known = [record_of(config) for config in configs(100)[:90]]
    planner = ListPlanner(configs(100), known)
    queue = WorkQueue(planner, 2, lambda record: None, trial_seconds=0.01, known=90)
    assert len(queue.next_batch("a")) == 2  # of ten, not of a hundred


def space_of(algorithm: str, samples: int = 60):
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


def result_of(config: TrialConfig):
    bonus = 10 if config.decomposition == "most-similar" else 0
    return record_of(config, accuracy=90 - 60 * config.ratio**2 + bonus * config.ratio)


def search(planner: Planner, seed: int, under_way: int) -> list[str]:
    """Run a planner with so many configurations under way at once, whose results come in random order."""
    draw = random.Random(seed)
    handed, running = [], []
    while True:
        while len(running) < under_way and (config := planner.ask()) is not None:
            handed.append(config.key)
            running.append(config)
        if not running:
            return handed
        planner.tell(result_of(running.pop(draw.randrange(len(running)))))


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_a_search_is_the_same_whatever_worker_is_faster(algorithm):
    space = space_of(algorithm)
    runs = [
        search(make_planner(Plan(space, seed=3)), seed, under_way) for seed, under_way in ((0, 1), (1, 4), (2, LAG))
    ]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == len(set(runs[0])) == 60
    assert runs[0] != search(make_planner(Plan(space, seed=4)), 0, 1)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
def test_a_search_goes_on_where_it_was(algorithm):
    space = space_of(algorithm, samples=50)
    whole = search(make_planner(Plan(space, 7)), 0, 2)
    known = [result_of(config) for config in space.grid() if config.key in set(whole[:30])]
    assert search(make_planner(Plan(space, 7, known)), 5, 2) == whole[30:]


@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe", "nsga2"])
def test_a_warm_start_hands_out_nothing_that_is_known(algorithm):
    space = space_of(algorithm, samples=20)
    earlier = [taken(result_of(config)) for config in list(space.grid())[:30]]
    planner = make_planner(Plan(space, 1, earlier))
    handed = search(planner, 0, 2)
    assert len(handed) == 20
    assert not set(handed) & {record.key for record in earlier}
    assert planner.total == 50
    again = make_planner(Plan(space, 1, [*earlier, *(result_of(c) for c in space.grid() if c.key in set(handed[:9]))]))
    assert search(again, 3, 2) == handed[9:]


def taken(record):
    return record.model_copy(update={"provenance": {TAKEN_FROM: "earlier"}})


def test_a_warm_start_is_what_the_sampler_learns_from():
    """Told that merging is better everywhere, TPE asks for it from the first draw on."""
    space = space_of("tpe", samples=12)
    earlier = [taken(result_of(config)) for config in list(space.grid())[::2]]
    planner = make_planner(Plan(space, 1, earlier))
    assert len(planner._study.get_trials(deepcopy=False)) == len(earlier)
    cold = set(search(make_planner(Plan(space, 1)), 0, 1))
    assert set(search(planner, 0, 1)) != cold


@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe", "nsga2"])
def test_hints_come_first(algorithm):
    space = space_of(algorithm, samples=20)
    hints = [list(space.grid())[number] for number in (50, 7, 31)]
    handed = search(make_planner(Plan(space, 1, hints=hints)), 0, 2)
    assert handed[:3] == [config.key for config in hints]
    assert len(handed) == len(set(handed)) == 20


def test_racing_takes_a_list_in_random_order_and_in_small_batches():
    space = space_of("grid", samples=72)
    plain, raced = (search(make_planner(Plan(space, 5, race=race)), 0, 2) for race in (False, True))
    assert plain != raced
    assert sorted(plain) == sorted(raced)
    assert raced == search(make_planner(Plan(space, 5, race=True)), 3, 7)
    queue = WorkQueue(make_planner(Plan(space, 5, race=True)), 2, lambda record: None, trial_seconds=0.001, race=True)
    batch = queue.next_batch("a")
    assert len(batch) == RACE_BATCH
    assert all(task.race is not None for task in batch)


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_a_search_can_see_everything(algorithm):
    space = space_of(algorithm, samples=1000)
    assert space.size() == 72
    handed = search(make_planner(Plan(space, 0)), 0, 2)
    assert set(handed) == {config.key for config in space.grid()}
    assert len(handed) == 72


def test_a_failed_trial_does_not_stop_the_search():
    planner = make_planner(Plan(space_of("tpe", samples=40), seed=0))
    for number in range(40):
        config = planner.ask()
        assert config is not None
        planner.tell(record_of(config, reason="not finite") if number % 3 == 0 else result_of(config))
    assert planner.exhausted
