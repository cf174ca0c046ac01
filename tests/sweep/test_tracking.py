"""MLflow as a view: what is put comes back nested, once, and an unreachable server never hurts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_records import record_of

from core.config import TrialConfig
from core.errors import UsageError
from core.records import SplitRecord
from sweep.errors import TrackingError
from sweep.tracking import Tracker, check_tracking, default_uri, redact
from sweep.tracking.summary import ON_FRONT, Ending, Front
from sweep.tracking.uri import artifact_root
from sweep.tracking.view import DatasetCard, all_rounded, child_run, params_of

CARD = DatasetCard("fashion-mnist", "abc123", 10_000, (1, 28, 28))
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:mlflow.*", "ignore::FutureWarning:mlflow.*", "ignore::ResourceWarning"
)


def records(count: int):
    made = [record_of(TrialConfig(ratio=number / (count + 1)), accuracy=50 + number) for number in range(count - 1)]
    return [*made, record_of(TrialConfig(ratio=0.99), reason="metric 'loss' is nan")]


def ending(tmp_path: Path) -> Ending:
    file = tmp_path / "front.csv"
    file.write_text("rank\n")
    return Ending("FINISHED", {"hypervolume": 71.5}, [file])


def track(uri: str, artifacts: str | None, info, made, tmp_path):
    tracker = Tracker(uri, artifacts, info, CARD)
    for record in made:
        tracker.put(record)
    return tracker.finish(ending(tmp_path), patience=60.0)


def assert_nested(uri: str, run_id: str, made) -> None:
    """One parent, one finished child run for each record, with everything on them."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    parent = client.get_run(run_id)
    experiment = client.get_experiment_by_name("toy")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000
    )
    by_key = {child.data.tags["sweep.trial_key"]: child for child in children}
    assert len(children) == len(by_key) == len(made)
    for record in made:
        child = by_key[record.key]
        assert child.data.params == params_of(record)
        assert all_rounded(record.metrics).items() <= child.data.metrics.items()
        assert child.info.status == ("FINISHED" if record.status == "finished" else "FAILED")
        assert child.info.end_time >= child.info.start_time > 0
        assert child.data.tags.get("sweep.reason", "") == record.reason
        (dataset,) = child.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("fashion-mnist", "abc123")
        assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "test")]
        history = client.get_metric_history(child.info.run_id, "accuracy")
        assert [point.value for point in history] == (
            [all_rounded(record.metrics)["accuracy"]] if record.metrics else []
        )
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["hypervolume"] == 71.5
    assert parent.data.metrics["original_accuracy"] == 90.0
    assert parent.data.tags["sweep.version.torch"] == "2"
    assert {file.path for file in client.list_artifacts(run_id)} == {"front.csv", "space.json"}
    assert json.loads(Path(client.download_artifacts(run_id, "space.json")).read_text()) == {"axes": {}}


def test_the_embedded_store(results, make_info, tmp_path):
    made = records(25)
    uri = default_uri(results)
    results.mkdir()
    report = track(uri, artifact_root(results), make_info("a"), made, tmp_path)
    assert (report.logged, report.missing, report.problem) == (25, 0, "")
    assert_nested(uri, report.run_id, made)
    again = track(uri, artifact_root(results), make_info("b"), made[:3], tmp_path)
    assert again.run_id != report.run_id
    assert_nested(uri, again.run_id, made[:3])
    assert_nested(uri, report.run_id, made)


def test_runs_on_the_front_say_so_and_no_others(results, make_info, tmp_path):
    """Also after more trials have changed the front."""
    from mlflow import MlflowClient

    made, info, uri = records(6), make_info("a"), default_uri(results)
    results.mkdir()

    def fronts(*fronts):
        for front in fronts:
            tracker = Tracker(uri, artifact_root(results), info, CARD)
            for record in made:
                tracker.put(record)
            report = tracker.finish(replace(ending(tmp_path), front=Front(front)), patience=60.0)
        found = MlflowClient(uri).search_runs([report.experiment_id], ON_FRONT)
        return report, {run.data.tags["sweep.trial_key"]: run for run in found}

    report, found = fronts(made[:2], made[1:4])
    assert {key: run.data.tags["sweep.rank"] for key, run in found.items()} == {
        record.key: str(rank) for rank, record in enumerate(made[1:4], 1)
    }
    client = MlflowClient(uri)
    text = client.get_run(report.run_id).data.tags["mlflow.note.content"]
    assert all(f"/runs/{run.info.run_id}?" in text for run in found.values())
    view = client.get_experiment(report.experiment_id).tags["mlflow.sharedViewState.sweep"]
    assert json.loads(view)["orderByKey"] == "metrics.`accuracy`"


def test_writing_again_makes_no_second_run(results, make_info, tmp_path):
    """A restarted writer finds its parent and the children that are there."""
    made, info, uri = records(10), make_info("a"), default_uri(results)
    results.mkdir()
    first = track(uri, artifact_root(results), info, made[:6], tmp_path)
    second = track(uri, artifact_root(results), info, made, tmp_path)
    assert first.run_id == second.run_id
    assert_nested(uri, second.run_id, made)


def test_the_client_is_used_where_the_fast_way_does_not_fit(results, make_info, tmp_path, monkeypatch):
    def other_version(*_):
        raise AttributeError("no attribute 'engine'")

    monkeypatch.setattr("sweep.tracking.sinks.SqliteSink", other_version)
    made, info, uri = records(5), make_info("a"), default_uri(results)
    results.mkdir()
    first = track(uri, artifact_root(results), info, made[:3], tmp_path)
    second = track(uri, artifact_root(results), info, made, tmp_path)  # finds what is there
    assert (first.run_id, second.logged, second.missing) == (second.run_id, 5, 0)
    assert_nested(uri, second.run_id, made)


def test_the_direct_way_is_left_in_the_middle_of_a_sweep(results, make_info, tmp_path, monkeypatch, caplog):
    """Every trial arrives once, and one sentence tells that the rest is slower."""
    from sweep.tracking.sinks import SqliteSink

    write = SqliteSink.write

    def write_twice(sink, children):
        write(sink, children)
        if len(sink.written) > 10:
            raise ValueError("no such column: is_nan")

    monkeypatch.setattr(SqliteSink, "write", write_twice)
    monkeypatch.setattr("sweep.tracking.tracker.RUNS_AT_ONCE", 7)
    made = records(30)
    results.mkdir()
    report = track(default_uri(results), artifact_root(results), make_info("a"), made, tmp_path)
    assert (report.logged, report.missing, report.problem) == (30, 0, "")
    assert_nested(default_uri(results), report.run_id, made)
    [told] = [record.getMessage() for record in caplog.records if record.name.startswith("sweep.")]
    assert "could not be written directly (ValueError: no such column: is_nan); child runs go through" in told


def test_a_store_that_cannot_be_used_is_told_and_nothing_more(tmp_path, make_info, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # MLflow's own hundred seconds of trying
    (tmp_path / "db").mkdir()
    tracker = Tracker(f"sqlite:///{tmp_path}/db", None, make_info("a"), CARD)
    tracker.put(records(2)[0])
    report = tracker.finish(ending(tmp_path), patience=3.0)
    assert (report.run_id, report.logged, report.missing) == ("", 0, 1)
    assert "unable to open database file" in report.problem


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server` on loopback, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder, self._process = free_port(), folder, None
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/m.db",
            "--artifacts-destination",
            f"{self._folder}/art",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *store],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not start")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
def test_a_server(server, make_info, tmp_path):
    check_tracking(server.uri)
    made = records(20)
    report = track(server.uri, None, make_info("a"), made, tmp_path)
    assert (report.logged, report.missing, report.problem) == (20, 0, "")
    assert_nested(server.uri, report.run_id, made)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while(server, make_info, tmp_path):
    made = records(20)
    tracker = Tracker(server.uri, None, make_info("a"), CARD)
    for record in made[:10]:
        tracker.put(record)
    while tracker.logged < 10:
        time.sleep(0.1)
    server.stop()
    for record in made[10:]:
        tracker.put(record)  # returns at once
    while not tracker.problem:
        time.sleep(0.1)
    server.start()
    report = tracker.finish(ending(tmp_path), patience=60.0)
    assert (report.logged, report.missing, report.problem) == (20, 0, "")
    assert_nested(server.uri, report.run_id, made)


@pytest.mark.slow
def test_a_server_that_never_comes_back(server, make_info, tmp_path):
    made = records(6)
    tracker = Tracker(server.uri, None, make_info("a"), CARD)
    tracker.put(made[0])
    while tracker.logged < 1:
        time.sleep(0.1)
    server.stop()
    for record in made[1:]:
        tracker.put(record)
    report = tracker.finish(ending(tmp_path), patience=2.0)
    assert (report.logged, report.missing) == (1, 5)
    assert report.problem


@pytest.mark.parametrize(
    ("uri", "error", "sentence"),
    [
        ("file:///x", UsageError, "give http://HOST:PORT"),
        ("mlruns", UsageError, "give http://HOST:PORT"),
        (
            "http://127.0.0.1:9",
            TrackingError,
            r"no MLflow server answers at http://127.0.0.1:9 \(.*refused\); start it",
        ),
        ("http://user:secret@127.0.0.1:9", TrackingError, "answers at http://…@127.0.0.1:9"),
    ],
)
def test_bad_addresses(uri, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        check_tracking(uri)
    assert "secret" not in str(caught.value)


def test_databases_are_taken_as_they_are():
    check_tracking("sqlite:///x.db")
    check_tracking("postgresql+psycopg2://user:secret@host/db")
    assert redact("postgresql+psycopg2://user:secret@host:5/db") == "postgresql+psycopg2://…@host:5/db"


def test_a_record_as_a_run():
    config = TrialConfig(ratio=0.8, decomposition="most-similar", options={"threshold": 0.2}, sites=("a*",))
    child = child_run(record_of(config), "p")
    assert child.name == "most-similar l1 0.8"
    expected = {"ratio": "0.8", "criterion": "l1", "threshold": "0.2", "sites": '["a*"]'}
    assert expected.items() <= child.params.items()
    assert not {"calibration", "calibration_images", "ratios", "options"} & set(child.params)
    assert child.tags["mlflow.parentRunId"] == "p"


def test_what_the_front_reached_on_the_test_split_joins_its_runs(results, make_info, tmp_path):
    from mlflow import MlflowClient

    results.mkdir()
    uri = default_uri(results)
    tracker = Tracker(uri, artifact_root(results), make_info("a"), CARD)
    made = records(4)
    for record in made:
        tracker.put(record)
    later = SplitRecord(key=made[1].key, split="test", metrics={"accuracy": 44.0, "loss": 1.5}, started_at=1.7e9)
    tracker.put(later)
    tracker.put(SplitRecord(key=made[2].key, split="test", status="failed", reason="no"))
    report = tracker.finish(ending(tmp_path), patience=60.0)
    again = Tracker(uri, artifact_root(results), make_info("a", started_at=tracker._info.state.started_at), CARD)
    for record in made:  # as after a resume: the records come with what they reached
        again.put(later.joined(record) if record.key == later.key else record)
    assert again.finish(ending(tmp_path), patience=60.0).run_id == report.run_id
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_run(report.run_id).info.experiment_id], "tags.`sweep.trial_key` != ''")
    assert len(runs) == 4
    tested = {run.data.tags["sweep.trial_key"]: run.data.metrics.get("test_accuracy") for run in runs}
    assert tested == {record.key: 44.0 if record.key == later.key else None for record in made}
    (run,) = [run for run in runs if run.data.tags["sweep.trial_key"] == later.key]
    assert len(client.get_metric_history(run.info.run_id, "test_accuracy")) == 1
    assert run.data.tags["sweep.split"] == "test"
