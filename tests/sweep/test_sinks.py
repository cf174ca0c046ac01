"""Child runs written directly: into tables that are known, and through the client as soon as anything is not."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlRun

from sweep.tracking.sinks import CarefulSink, ClientSink, SqliteSink, children_of, dataset_input, make_sink, tables
from sweep.tracking.view import PARENT, TRIAL_KEY, ChildRun, DatasetCard

CARD = DatasetCard("fashion-mnist", "abc123", 10_000, (1, 28, 28))
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:mlflow.*", "ignore::FutureWarning:mlflow.*", "ignore::ResourceWarning"
)

KNOWN = {
    "runs": {
        "run_uuid": "VARCHAR(32) not null",
        "name": "VARCHAR(250)",
        "source_type": "VARCHAR(20)",
        "source_name": "VARCHAR(500)",
        "entry_point_name": "VARCHAR(50)",
        "user_id": "VARCHAR(256)",
        "status": "VARCHAR(20)",
        "start_time": "BIGINT",
        "end_time": "BIGINT",
        "deleted_time": "BIGINT",
        "source_version": "VARCHAR(50)",
        "lifecycle_stage": "VARCHAR(20)",
        "artifact_uri": "VARCHAR(200)",
        "experiment_id": "INTEGER",
    },
    "params": {"key": "VARCHAR(250) not null", "value": "VARCHAR(8000) not null", "run_uuid": "VARCHAR(32) not null"},
    "metrics": {
        "key": "VARCHAR(250) not null",
        "value": "FLOAT not null",
        "timestamp": "BIGINT not null",
        "step": "BIGINT not null",
        "is_nan": "BOOLEAN not null",
        "run_uuid": "VARCHAR(32) not null",
    },
    "latest_metrics": {
        "key": "VARCHAR(250) not null",
        "value": "FLOAT not null",
        "timestamp": "BIGINT",
        "step": "BIGINT not null",
        "is_nan": "BOOLEAN not null",
        "run_uuid": "VARCHAR(32) not null",
    },
    "tags": {"key": "VARCHAR(250) not null", "value": "VARCHAR(8000)", "run_uuid": "VARCHAR(32) not null"},
    "inputs": {
        "input_uuid": "VARCHAR(36) not null",
        "source_type": "VARCHAR(36) not null",
        "source_id": "VARCHAR(36) not null",
        "destination_type": "VARCHAR(36) not null",
        "destination_id": "VARCHAR(36) not null",
        "step": "BIGINT not null",
    },
    "input_tags": {
        "input_uuid": "VARCHAR(36) not null",
        "name": "VARCHAR(255) not null",
        "value": "VARCHAR(500) not null",
    },
    "datasets": {
        "dataset_uuid": "VARCHAR(36) not null",
        "experiment_id": "INTEGER not null",
        "name": "VARCHAR(500) not null",
        "digest": "VARCHAR(36) not null",
        "dataset_source_type": "VARCHAR(36) not null",
        "dataset_source": "TEXT not null",
        "dataset_schema": "TEXT",
        "dataset_profile": "TEXT",
    },
}
"""MLflow's definitions, as they were when the direct way was last looked at. A change: read MLflow's migration, see
whether `SqliteSink` still writes what the client writes (the tests below compare them), and renew this table."""
LEFT_OUT = {"runs": {"deleted_time"}, "inputs": {"step"}}
"""Columns that keep MLflow's default; all others of a table that is written are written."""
WRITTEN = {name: set(columns) - LEFT_OUT.get(name, set()) for name, columns in KNOWN.items() if name != "datasets"}


def defined(metadata: sqlalchemy.MetaData) -> dict[str, dict[str, str]]:
    """The tables of MLflow that we know, as it defines them now."""
    return {
        name: {column.name: f"{column.type}{'' if column.nullable else ' not null'}" for column in table.columns}
        for name, table in metadata.tables.items()
        if name in KNOWN
    }


def changes(known: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """What is different, in words."""
    told = []
    for name, columns in known.items():
        found = now.get(name, {})
        told += [f"{name}.{column} is gone" for column in columns if column not in found]
        told += [f"{name}.{column} is new: {text}" for column, text in found.items() if column not in columns]
        both = [column for column in columns if column in found and columns[column] != found[column]]
        told += [f"{name}.{column} was {columns[column]}, is {found[column]}" for column in both]
    return told


def child(number: int, parent: str) -> ChildRun:
    tags = {PARENT: parent, TRIAL_KEY: f"key-{number}", "mlflow.runName": f"trial {number}"}
    measured = {"accuracy": 50.0 + number, "loss": 0.5}
    start = 1_700_000_000_000 + number
    params = {"ratio": str(number / 100), "criterion": "l1"}
    return ChildRun(f"key-{number}", f"trial {number}", "FINISHED", start, start + 5, params, measured, tags)


class Place:
    """A store with one sweep's run in it."""

    def __init__(self, database: Path) -> None:
        self.database, self.uri = database, f"sqlite:///{database}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self.client.create_experiment("toy", artifact_location=database.parent.as_uri())
        self.parent = self.client.create_run(self.experiment).info.run_id
        self.client.log_inputs(self.parent, datasets=[dataset_input(CARD)])  # as a sweep does, so that it is there once
        self.engine = self.client._tracking_client.store.engine

    def sink(self, kind: Callable[..., Any] = CarefulSink) -> Any:
        return kind(self.client, self.experiment, self.parent, CARD)

    def children(self, first: int, last: int) -> list[ChildRun]:
        return [child(number, self.parent) for number in range(first, last)]

    def query(self, text: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(text).fetchall()

    def keys(self) -> list[str]:
        """Of the child runs in the tables themselves, as often as they are there."""
        return sorted(row[0] for row in self.query(f"select value from tags where key = '{TRIAL_KEY}'"))

    def seen(self) -> dict[str, Any]:
        """Everything on each child run, as MLflow shows it, but for its id."""
        found = children_of(self.client, self.experiment, self.parent)
        return {key: _seen(run) for key, run in sorted(found.items())}


def _seen(run: Any) -> dict[str, Any]:
    info, [data] = run.info, run.inputs.dataset_inputs
    times = (info.start_time, info.end_time, info.status, info.lifecycle_stage, info.run_name, info.user_id)
    own = info.artifact_uri.replace(info.run_id, "RUN")
    named = [(tag.key, tag.value) for tag in data.tags]
    return {"info": times, "artifacts": own, "data": dict(data.dataset), "split": named, **run.data.to_dictionary()}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """An MLflow store with nothing in it; making its tables takes seconds."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def place(empty, tmp_path) -> Place:
    return Place(Path(shutil.copy(empty, tmp_path / "mlflow.db")))


@contextlib.contextmanager
def broken(engine: Any, table: str) -> Iterator[list[str]]:
    """The first row that goes into ``table`` is refused."""
    refused: list[str] = []

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if re.match(rf"INSERT INTO {table}\b", statement) and not refused:
            refused.append(statement)
            raise RuntimeError(f"no {table} today")

    sqlalchemy.event.listen(engine, "before_cursor_execute", refuse)
    try:
        yield refused
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", refuse)


def assert_once(place: Place, count: int) -> None:
    """Every run is there once, with all that the client would have written."""
    assert place.keys() == sorted(f"key-{number}" for number in range(count))
    seen = place.seen()
    assert len(seen) == count
    for run in place.children(0, count):
        assert seen[run.key]["metrics"] == run.metrics
        assert seen[run.key]["params"] == run.params
        assert seen[run.key]["info"][:3] == (run.start, run.end, "FINISHED")
        assert seen[run.key]["split"] == [("mlflow.data.context", "test")]


def test_mlflows_tables_are_those_that_we_know():
    assert changes(KNOWN, defined(SqlRun.metadata)) == []


def test_the_file_has_the_same_columns(place):
    """What MLflow's migrations make of a file."""
    made = {name: {row[1] for row in place.query(f"pragma table_info({name})")} for name in KNOWN}
    assert made == {name: set(columns) for name, columns in KNOWN.items()}


def test_a_change_of_the_tables_is_named():
    now = {**KNOWN, "tags": {"key": "TEXT not null", "value": "VARCHAR(8000)", "run_id": "VARCHAR(32) not null"}}
    assert changes(KNOWN, now) == [
        "tags.run_uuid is gone",
        "tags.run_id is new: VARCHAR(32) not null",
        "tags.key was VARCHAR(250) not null, is TEXT not null",
    ]
    assert changes({"datasets": KNOWN["datasets"]}, {}) == [f"datasets.{name} is gone" for name in KNOWN["datasets"]]


def test_the_tables_and_columns_that_are_written(place):
    written: dict[str, set[str]] = {}

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if found := re.match(r'INSERT INTO (\w+) \(([\w, "]+)\)', statement):
            written[found[1]] = {name.strip('" ') for name in found[2].split(",")}

    sink = place.sink(SqliteSink)
    sqlalchemy.event.listen(place.engine, "before_cursor_execute", look)
    sink.write(place.children(0, 3))
    sqlalchemy.event.remove(place.engine, "before_cursor_execute", look)
    assert written == WRITTEN


def test_both_ways_write_the_same(empty, tmp_path):
    ways = {}
    for kind in (SqliteSink, ClientSink):
        place = Place(Path(shutil.copy(empty, tmp_path / f"{kind.__name__}.db")))
        place.sink(kind).write(place.children(0, 4))
        assert_once(place, 4)
        ways[kind] = place.seen()
        for run in ways[kind].values():
            assert run["tags"].pop(PARENT) == place.parent
    assert ways[SqliteSink] == ways[ClientSink]


def test_nothing_is_left_while_all_goes_well(place, caplog):
    sink = make_sink(place.client, place.uri, place.experiment, place.parent, CARD)
    assert isinstance(sink, CarefulSink)
    for first in (0, 3, 6):
        sink.write(place.children(first, first + 4))
    assert sink.slow_because == ""
    assert_once(place, 10)
    assert not caplog.records


def after_commit(place: Place, monkeypatch: Any) -> None:
    """The transaction is done, and then something fails."""
    begin = place.engine.begin

    @contextlib.contextmanager
    def begin_once() -> Iterator[Any]:
        monkeypatch.setattr(place.engine, "begin", begin)
        with begin() as connection:
            yield connection
        raise OSError("the wire broke")

    monkeypatch.setattr(place.engine, "begin", begin_once)


def renamed(place: Place, monkeypatch: Any) -> None:
    """MLflow calls a column otherwise."""
    columns: list[Any] = [
        sqlalchemy.Column(name) for name in ("run_uuid", "key", "number", "timestamp", "step", "is_nan")
    ]
    other = sqlalchemy.Table("metrics", sqlalchemy.MetaData(), *columns)
    monkeypatch.setattr("sweep.tracking.sinks.tables", lambda: {**tables(), "metrics": other})


def gone(place: Place, monkeypatch: Any) -> None:
    """A table is not where it was."""
    monkeypatch.setattr("sweep.tracking.sinks.tables", lambda: {k: v for k, v in tables().items() if k != "inputs"})


@pytest.mark.parametrize("fault", [after_commit, renamed, gone])
@pytest.mark.parametrize("before", [0, 5])
def test_after_an_error_the_client_goes_on(place, fault, before, monkeypatch, caplog):
    sink = place.sink()
    sink.write(place.children(0, before))
    fault(place, monkeypatch)
    sink.write(place.children(before, before + 4))  # the writer notices nothing
    assert sink.written == {f"key-{number}" for number in range(before + 4)}
    sink.write(place.children(before + 2, before + 6))
    assert_once(place, before + 6)
    assert_told_once(sink, caplog)


@pytest.mark.parametrize("table", WRITTEN)
def test_an_error_in_the_middle_of_a_transaction(place, table, caplog):
    sink = place.sink()
    sink.write(place.children(0, 2))
    with broken(place.engine, table) as refused:
        sink.write(place.children(1, 5))
    assert refused
    sink.write(place.children(3, 8))
    assert_once(place, 8)
    assert_told_once(sink, caplog)
    assert f"RuntimeError: no {table} today" in sink.slow_because


def assert_told_once(sink: CarefulSink, caplog: Any) -> None:
    [record] = [record for record in caplog.records if record.name.startswith("sweep.")]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == sink.slow_because
    assert re.fullmatch(
        r"MLflow's tables could not be written directly \(\w+: .+\);"
        r" child runs go through its client from now on, which is slower",
        sink.slow_because,
    )


def test_a_column_that_is_dropped_and_put_back(place, monkeypatch, caplog):
    """The client knows the column too: until it is back nothing is written, and then everything is."""
    sink = place.sink()
    sink.write(place.children(0, 3))
    place.query("alter table runs drop column source_version")
    for _ in range(2):
        with pytest.raises(MlflowException, match="source_version"):
            sink.write(place.children(3, 6))
        assert sink.written == {"key-0", "key-1", "key-2"}
        assert place.keys() == ["key-0", "key-1", "key-2"]
    place.query("alter table runs add column source_version varchar(50)")
    sink.write(place.children(3, 6))
    assert_once(place, 6)
    assert_told_once(sink, caplog)


def test_an_error_while_it_is_made(place, monkeypatch, caplog):
    place.sink(SqliteSink).write(place.children(0, 2))

    def other_version(*_: Any) -> None:
        raise AttributeError("no attribute 'engine'")

    monkeypatch.setattr("sweep.tracking.sinks.SqliteSink", other_version)
    sink = place.sink()
    assert sink.written == {"key-0", "key-1"}
    sink.write(place.children(1, 4))
    assert_once(place, 4)
    assert_told_once(sink, caplog)


def test_a_store_that_does_not_answer_is_no_reason(place, monkeypatch, caplog):
    """Whoever asked for a sink asks again."""

    def away(*_: Any) -> None:
        raise MlflowException("unable to open database file")

    monkeypatch.setattr("sweep.tracking.sinks.SqliteSink", away)
    with pytest.raises(MlflowException, match="unable to open"):
        place.sink()
    assert not caplog.records


@pytest.mark.parametrize("done", [True, False])
def test_an_error_that_passes_is_tried_again_directly_and_writes_nothing_twice(place, done, monkeypatch, caplog):
    sink = place.sink()
    direct = sink._direct.write

    def full(children):
        if done:
            direct(children)
            sink._direct.written -= {child.key for child in children}
        raise sqlalchemy.exc.OperationalError("insert", {}, Exception("database or disk is full"))

    monkeypatch.setattr(sink._direct, "write", full)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="disk is full"):
        sink.write(place.children(0, 4))
    monkeypatch.setattr(sink._direct, "write", direct)
    sink.write(place.children(0, 6))
    assert sink.slow_because == ""
    assert caplog.text == ""
    assert_once(place, 6)


def test_runs_that_the_client_began_are_ended_and_not_made_again(place, monkeypatch):
    through_client = place.sink(ClientSink)
    monkeypatch.setattr(through_client._client, "set_terminated", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        through_client.write(place.children(0, 3))
    monkeypatch.undo()
    sink = place.sink()
    assert sink.written == set()
    sink.write(place.children(0, 5))
    assert_once(place, 5)


@pytest.mark.parametrize("kind", [ClientSink, SqliteSink])
def test_the_curve_of_a_recovery_is_a_metric_with_steps(kind, place):
    (child,) = place.children(0, 1)
    child = dataclasses.replace(child, curve=((8, 2.5), (16, 1.25), (20, 1.0)))
    place.sink(kind).write([child])
    (run,) = children_of(place.client, place.experiment, place.parent).values()
    assert run.data.metrics == {**child.metrics, "recovery_loss": 1.0}
    history = place.client.get_metric_history(run.info.run_id, "recovery_loss")
    assert [(point.step, point.value) for point in history] == [(8, 2.5), (16, 1.25), (20, 1.0)]
