"""Batches, retries and planners, without Ray."""

from __future__ import annotations

import random

import pytest
from sweep_records import record_of

from core.config import TrialConfig
from search_spaces import parse_space
from sweep.planner import LAG, ListPlanner, OptunaPlanner, Planner, make_planner
from sweep.workqueue import ATTEMPTS, BATCH_LIMIT, WorkQueue


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
        for config in batch:
            if why := fate(config):
                queue.ended(name, why)
                break
            queue.returned(name, [record_of(config)])
        else:
            queue.ended(name)
    return sizes


def test_every_configuration_is_recorded_once():
    records = []
    queue = WorkQueue(ListPlanner(configs(100)), 2, records.append, trial_seconds=0.05)
    sizes = drain(queue)
    assert sorted(r.config.ratio for r in records) == [c.ratio for c in configs(100)]
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
    (config,) = queue.next_batch("a")
    queue.returned("a", [record_of(config)])
    queue.returned("a", [record_of(config)])
    assert len(records) == 1


def test_dying_in_company_is_no_attempt():
    """A batch dies, then one of it alone, twice: that is two attempts, so it is tried once more."""
    records = []
    queue = WorkQueue(ListPlanner(configs(40)), 2, records.append, trial_seconds=0.05)
    batch = queue.next_batch("all")
    assert len(batch) > 1
    queue.ended("all", "killed")
    deaths = {batch[0].key: ATTEMPTS - 1}

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
    runs = [search(OptunaPlanner(space, seed=3), seed, under_way) for seed, under_way in ((0, 1), (1, 4), (2, LAG))]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == len(set(runs[0])) == 60
    assert runs[0] != search(OptunaPlanner(space, seed=4), 0, 1)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
def test_a_search_goes_on_where_it_was(algorithm):
    space = space_of(algorithm, samples=50)
    whole = search(make_planner(space, 7), 0, 2)
    known = [result_of(config) for config in space.grid() if config.key in set(whole[:30])]
    assert search(make_planner(space, 7, known), 5, 2) == whole[30:]


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_a_search_can_see_everything(algorithm):
    space = space_of(algorithm, samples=1000)
    assert space.size() == 72
    handed = search(make_planner(space, 0), 0, 2)
    assert set(handed) == {config.key for config in space.grid()}
    assert len(handed) == 72


def test_a_failed_trial_does_not_stop_the_search():
    planner = OptunaPlanner(space_of("tpe", samples=40), seed=0)
    for number in range(40):
        config = planner.ask()
        assert config is not None
        planner.tell(record_of(config, reason="not finite") if number % 3 == 0 else result_of(config))
    assert planner.exhausted
