"""The work queue on a real Ray: every configuration is recorded once, whatever dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sweep_fakes as fakes
from ray import cloudpickle

from core.config import TrialConfig
from core.records import TrialRecord
from sweep.backend.cluster import connected
from sweep.backend.execute import execute
from sweep.backend.stopping import StopRequest
from sweep.backend.worker import Work
from sweep.backend.workqueue import ATTEMPTS, WorkQueue
from sweep.search.listed import ListPlanner
from sweep.storage.info import ClusterRequest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def workers() -> Iterator[int]:
    cloudpickle.register_pickle_by_value(fakes)
    with connected(ClusterRequest(workers=2), shared_bytes=10**6) as count:
        yield count
    cloudpickle.unregister_pickle_by_value(fakes)


def configs(count: int, special: int = 0) -> list[TrialConfig]:
    """So many configurations, ``special`` of them (spread out) with seed 1."""
    marked = {(number + 1) * count // (special + 1) for number in range(special)}
    return [TrialConfig(ratio=number / (count + 1), seed=int(number in marked)) for number in range(count)]


def sweep(
    planned, trial, workers: int, folder: Path, stop: StopRequest | None = None, limit: float | None = None, **bench
) -> list[TrialRecord]:
    records: list[TrialRecord] = []
    queue = WorkQueue(ListPlanner(planned), workers, records.append, trial_seconds=0.01, limit=limit)
    execute(queue, fakes.Bench(str(folder), **bench), Work(trial), workers, stop or StopRequest())
    return records


def runs(folder: Path) -> Counter[str]:
    return Counter((folder / "runs").read_text().split())


def test_workers_are_reused(workers, tmp_path):
    planned = configs(200)
    records = sweep(planned, fakes.trial, workers, tmp_path)
    assert sorted(r.ratio for r in records) == [c.ratio for c in planned]
    assert set(runs(tmp_path).values()) == {1}
    assert len(list(tmp_path.glob("worker-*"))) == workers


def test_fewer_configurations_than_workers(workers, tmp_path):
    assert len(sweep(configs(1), fakes.trial, workers, tmp_path)) == 1


def test_killed_workers_cost_no_trial(workers, tmp_path):
    planned = configs(60, special=3)
    records = sweep(planned, fakes.trial_that_dies_once, workers, tmp_path)
    assert Counter(r.key for r in records) == Counter(c.key for c in planned)
    assert {r.status for r in records} == {"finished"}
    assert len(list(tmp_path.glob("died-*"))) == 3


def test_a_configuration_that_kills_is_recorded_with_its_reason(workers, tmp_path):
    planned = configs(40, special=1)
    records = sweep(planned, fakes.trial_that_kills, workers, tmp_path)
    assert Counter(r.key for r in records) == Counter(c.key for c in planned)
    (failed,) = [r for r in records if r.status == "failed"]
    assert failed.config["seed"] == 1
    assert failed.reason == f"the worker process died (killed, crashed, or its machine was lost) ({ATTEMPTS} attempts)"


def test_workers_that_cannot_start_end_the_sweep(workers, tmp_path):
    stop = StopRequest()
    records = sweep(configs(500), fakes.trial, workers, tmp_path, stop, fails_in_setup=True)
    assert all(record.status == "failed" for record in records)
    assert len(records) < 20
    assert stop.reason == "the workers fail again and again: the worker raised ImportError: no module named 'user_code'"
    assert stop.exit_code == 1


def test_a_trial_that_hangs_fails_and_its_worker_goes_on(workers, tmp_path):
    planned = configs(30, special=1)
    records = sweep(planned, fakes.trial_that_hangs, workers, tmp_path, limit=1.0)
    assert Counter(r.key for r in records) == Counter(c.key for c in planned)
    (failed,) = [r for r in records if r.status == "failed"]
    assert (failed.config["seed"], failed.reason) == (1, "it took longer than 1 s (--trial-timeout)")
    assert len(list(tmp_path.glob("worker-*"))) <= workers, "a worker was killed"


def test_a_trial_that_hangs_in_c_is_killed_with_its_worker_and_not_tried_again(workers, tmp_path):
    planned = [*configs(10), TrialConfig(ratio=0.95, seed=2)]
    records = sweep(planned, fakes.trial_that_hangs, workers, tmp_path, limit=1.0)
    assert Counter(r.key for r in records) == Counter(c.key for c in planned)
    (failed,) = [r for r in records if r.status == "failed"]
    assert failed.config["seed"] == 2
    assert failed.reason == "it took longer than 1 s (--trial-timeout) and its worker had to be killed"


def test_what_a_trial_prints_is_in_its_record(workers, tmp_path):
    planned = configs(6, special=1)
    records = sweep(planned, fakes.trial_that_talks, workers, tmp_path)
    for record in records:
        assert record.log.startswith(f"ratio {record.ratio}\n")
    (odd,) = [r for r in records if r.config["seed"] == 1]
    assert "UserWarning: odd" in odd.log
    assert "WARNING toy: strange" in odd.log


def test_a_stop_keeps_what_is_done(workers, tmp_path):
    """The last one here: the workers that are given up end with their Ray."""
    stop, records = StopRequest(), []

    def on_record(record: TrialRecord) -> None:
        records.append(record)
        if len(records) == 50:
            stop.ask("enough", 130)

    queue = WorkQueue(ListPlanner(configs(5000)), workers, on_record, trial_seconds=0.01)
    execute(queue, fakes.Bench(str(tmp_path)), Work(fakes.trial), workers, stop)
    assert 50 <= len(records) < 5000
