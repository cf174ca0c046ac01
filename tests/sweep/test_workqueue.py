"""Batches, retries and planners, without Ray."""

from __future__ import annotations

import pytest
from ray.exceptions import RayActorError
from sweep_records import record_of

from core.config import TrialConfig
from core.records import SplitRecord, TrialRecord
from sweep.backend.deadline import hard_limit
from sweep.backend.raytune import was_taken_away
from sweep.backend.stopping import Stopped, StopRequest
from sweep.backend.workqueue import ATTEMPTS, BATCH_LIMIT, RACE_BATCH, WorkQueue
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


def test_racing_is_done_in_small_batches():
    planner = ListPlanner(configs(72))
    queue = WorkQueue(planner, 2, lambda record: None, trial_seconds=0.001, race=True)
    batch = queue.next_batch("a")
    assert len(batch) == RACE_BATCH
    assert all(task.race is not None for task in batch)


def at_the_end(queue: WorkQueue, fate=lambda task: "") -> list[list[str]]:
    """Run the queue as one worker would; the ids of its tasks, batch by batch."""
    batches = []
    while not queue.finished:
        name = f"b{len(batches)}"
        batch = queue.next_batch(name)
        assert batch
        batches.append([task.id for task in batch])
        for task in batch:
            if why := fate(task):
                queue.ended(name, why)
                break
            record = SplitRecord(key=task.config.key, split="test") if task.test else record_of(task.config)
            queue.returned(name, [record])
        else:
            queue.ended(name)
    return batches


def test_the_front_is_tested_when_the_search_is_over():
    records, asked = [], []

    def front() -> list[TrialConfig]:
        asked.append(len(records))
        return configs(20)[3:8]

    queue = WorkQueue(ListPlanner(configs(20)), 2, records.append, trial_seconds=0.05, last=front)
    batches = at_the_end(queue)
    assert asked == [20], "once, and when every trial is there"
    tested = [name for batch in batches for name in batch if name.endswith("/test")]
    assert tested == [f"{config.key}/test" for config in configs(20)[3:8]]
    assert [record.key for record in records[20:]] == [config.key for config in configs(20)[3:8]]
    assert all(isinstance(record, SplitRecord) for record in records[20:])


def test_a_test_that_kills_its_worker_is_given_up_and_the_trial_stays():
    records = []
    bad = configs(6)[2]
    queue = WorkQueue(ListPlanner(configs(6)), 2, records.append, trial_seconds=0.05, last=lambda: [bad, configs(6)[4]])
    at_the_end(queue, lambda task: "killed" if task.test and task.config == bad else "")
    assert [(r.key, r.status) for r in records if isinstance(r, TrialRecord) and r.key == bad.key] == [
        (bad.key, "finished")
    ]
    (failed,) = [r for r in records if isinstance(r, SplitRecord) and r.status == "failed"]
    assert (failed.key, failed.reason) == (bad.key, f"killed ({ATTEMPTS} attempts)")
    assert len(records) == 8


def test_nothing_to_test_is_the_end():
    queue = WorkQueue(ListPlanner(configs(2)), 2, lambda record: None, trial_seconds=60.0)
    assert [len(batch) for batch in at_the_end(queue)] == [1, 1]


def test_winding_up_draws_no_more_waits_for_what_runs_and_tests_the_front():
    records, bad = [], configs(100)[1]
    queue = WorkQueue(ListPlanner(configs(100)), 2, records.append, trial_seconds=60.0, last=lambda: [configs(100)[0]])
    first, second = queue.next_batch("a"), queue.next_batch("b")
    queue.ended("b", "killed")  # it would run again
    assert queue.wind_up()
    assert queue.next_batch("c") is None
    assert not queue.finished
    queue.returned("a", [record_of(task.config) for task in first])
    queue.ended("a")
    (test,) = queue.next_batch("d")
    assert (test.test, test.config, second[0].config) == (True, configs(100)[0], bad)
    assert queue.wind_up(), "it is asked again and again"
    queue.returned("d", [SplitRecord(key=test.config.key, split="test")])
    queue.ended("d")
    assert queue.finished
    assert len(records) == 2


def test_where_nothing_is_to_be_tested_there_is_nothing_to_wait_for():
    queue = WorkQueue(ListPlanner(configs(9)), 2, lambda record: None, trial_seconds=60.0)
    assert not queue.wind_up()
    assert queue.next_batch("a")


def test_a_stop_in_good_order_winds_up_and_an_urgent_one_does_not():
    stop, asked = StopRequest(), []
    stop.check(lambda: bool(asked.append("early")))
    assert asked == []
    stop.ask("its time limit is over")
    stop.check(lambda: True)
    with pytest.raises(Stopped, match="its time limit"):
        stop.check(lambda: False)
    assert (stop.status, stop.in_good_order) == ("stopped", True)
    stop.ask("the front has not grown")
    assert stop.reason == "its time limit is over", "the first reason stays"
    stop.check(lambda: True)
    stop.ask("'sweep stop'", at_once=True)
    with pytest.raises(Stopped, match="sweep stop"):
        stop.check(lambda: True)
    assert (stop.status, stop.exit_code) == ("stopped", 0)
    stop.ask("Ctrl-C", 130)
    assert stop.reason == "'sweep stop'"


@pytest.mark.parametrize(
    ("error", "taken"),
    [
        (RayActorError(preempted=True), True),
        (RayActorError(error_msg="It died because\n\tthe actor's node was preempted: of its price"), True),
        (RayActorError(error_msg="It died because\n\tthe actor's node was terminated expectedly: SIGTERM"), True),
        (RayActorError(error_msg="the actor's node was terminated unexpectedly: it does not answer"), False),
        (RayActorError(), False),
        (RuntimeError("the actor's node was preempted: says a user's code"), False),
        (None, False),
    ],
)
def test_machines_that_are_taken_away_are_told_from_those_that_die(error, taken):
    assert was_taken_away(error) == taken


def test_a_machine_that_is_taken_away_is_no_attempt():
    """However often that happens to one trial; and it makes no sweep hopeless, and is no timeout."""
    records = []
    queue = WorkQueue(ListPlanner(configs(1)), 1, records.append, trial_seconds=60.0, limit=1e-9)
    for number in range(20):
        (task,) = queue.next_batch(str(number))
        queue.ended(str(number), "the worker's machine was taken away", excused=True)
        assert not records
        assert not queue.hopeless
    queue.next_batch("last")
    queue.returned("last", [record_of(task.config)])
    queue.ended("last")
    assert [r.status for r in records] == ["finished"]
    assert queue.finished
