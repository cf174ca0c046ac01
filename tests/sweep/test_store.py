"""The results store: nothing that was appended is lost, and every refusal names its remedy."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UnknownNameError, UsageError
from sweep.errors import StoreError
from sweep.storage.layout import INFO, LOCK, RESERVE, TRIALS
from sweep.storage.reader import is_locked, read_sweep, sweep_names
from sweep.storage.writer import create_store, open_store, remove_empty


def test_records_come_back_in_order(results, make_info, make_record):
    records = [make_record(ratio) for ratio in (0.5, 0.1, 0.9)]
    with create_store(results, "a", make_info) as store:
        for record in records:
            store.append(record)
            assert read_sweep(results, "a").records[-1] == record  # handed over before the next is taken
    sweep = read_sweep(results, "a")
    assert sweep.records == records
    assert sweep.torn_lines == 0


def test_info_is_replaced_not_edited(results, make_info):
    with create_store(results, "a", make_info) as store:
        store.save(replace(store.state, total=77, status="finished"))
    assert read_sweep(results, "a").info.state.total == 77
    assert not list((results / "a").glob("*.new"))


def test_a_running_sweep_is_locked_and_a_gone_one_is_interrupted(results, make_info):
    store = create_store(results, "a", make_info)
    assert is_locked(results / "a")
    assert read_sweep(results, "a").info.status == "running"
    store.close()
    assert not is_locked(results / "a")
    assert read_sweep(results, "a").info.status == "interrupted"


@pytest.mark.parametrize("cut", [1, 10, -2])
def test_a_torn_last_line_is_left_out_and_counted(results, make_info, make_record, cut):
    with create_store(results, "a", make_info) as store:
        for ratio in (0.1, 0.2, 0.3):
            store.append(make_record(ratio))
    path = results / "a" / TRIALS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    sweep = read_sweep(results, "a")
    assert [record.ratio for record in sweep.records] == [0.1, 0.2]
    assert sweep.torn_lines == 1


def test_a_record_written_twice_counts_once(results, make_info, make_record):
    record = make_record(0.5)
    with create_store(results, "a", make_info) as store:
        store.append(record)
        store.append(record)
    assert read_sweep(results, "a").records == [record]


def test_a_taken_name_is_refused_with_the_remedy(results, make_info, make_record):
    with create_store(results, "a", make_info) as store:
        store.append(make_record())
    with pytest.raises(
        UsageError,
        match=r"sweep 'a' \(interrupted, 1 trials\) is there already; go on with 'sweep resume a --results .*'",
    ):
        create_store(results, "a", make_info)


def test_without_a_name_the_next_free_number_is_taken(results, make_info):
    names = []
    for _ in range(3):
        with create_store(results, None, make_info, default="toy") as store:
            names.append(store.info.name)
    assert names == ["toy", "toy-2", "toy-3"]
    assert sweep_names(results) == names


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_names_that_are_no_folder_names_are_refused(results, make_info, name):
    with pytest.raises(UsageError, match="use letters, digits"):
        create_store(results, name, make_info)
    assert not results.exists() or not any(results.iterdir())


def test_an_unknown_sweep_is_answered_with_the_nearest(results, make_info):
    create_store(results, "lenet", make_info).close()
    with pytest.raises(UnknownNameError, match="did you mean 'lenet'"):
        read_sweep(results, "lenot")


def test_results_that_is_a_file_is_refused(results, make_info):
    results.write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        create_store(results, None, make_info)


def test_a_damaged_info_is_one_sentence(results, make_info):
    create_store(results, "a", make_info).close()
    (results / "a" / INFO).write_text('{"name": 3')
    with pytest.raises(StoreError, match=r"sweep\.json.*damaged"):
        read_sweep(results, "a")


def test_a_sweep_without_trials_frees_its_name(results, make_info, make_record):
    store = create_store(results, "a", make_info)
    assert remove_empty(store)
    store.close()
    with create_store(results, "a", make_info) as store:
        store.append(make_record())
        assert not remove_empty(store)


class FullDisk:
    """A file on a disk without room, until the reserve is given up."""

    def __init__(self, file, folder: Path, room_after: bool) -> None:
        self._file, self._folder, self._room_after = file, folder, room_after

    def write(self, line: bytes) -> int:
        if (self._folder / RESERVE).exists() or not self._room_after:
            self._file.write(line[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(line)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def test_on_a_full_disk_the_reserve_makes_room(results, make_info, make_record):
    store = create_store(results, "a", make_info)
    store.append(make_record(0.1))
    assert not store.trouble
    store._trials = FullDisk(store._trials, store.folder, room_after=True)
    store.append(make_record(0.2))
    assert "No space left on device" in store.trouble
    assert "free some space" in store.trouble
    assert len(read_sweep(results, "a").records) == 2  # at once, not only at the end
    store.append(make_record(0.3))
    store.close()
    sweep = read_sweep(results, "a")
    assert [record.ratio for record in sweep.records] == [0.1, 0.2, 0.3]
    assert sweep.torn_lines == 0


def test_what_cannot_be_stored_at_all_is_counted(results, make_info, make_record):
    store = create_store(results, "a", make_info)
    store._trials = FullDisk(store._trials, store.folder, room_after=False)
    store.append(make_record(0.1))
    store.append(make_record(0.2))
    with pytest.raises(StoreError, match="2 trials could not be stored"):
        store.close()
    assert read_sweep(results, "a").records == []


KILLED = """
import sys, time
from pathlib import Path
from core.config import TrialConfig
from core.records import TrialRecord
from sweep.storage.info import SweepInfo, SweepRequest, SweepState
from sweep.storage.writer import create_store
asked = lambda name: SweepRequest(name=name, space="toy", resolved={}, search="grid")
info = lambda name: SweepInfo(asked(name), SweepState(total=9))
store = create_store(Path(sys.argv[1]), "a", info)
for number in range(10**6):
    config = TrialConfig(ratio=number / 10**6)
    metrics = {"accuracy": 80.0, "params_fraction": 0.5}
    store.append(TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_and_frees_the_lock(results):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(results)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = -1
    deadline = time.monotonic() + 60
    while last < 200 and time.monotonic() < deadline:
        last = int(process.stdout.readline())
    assert is_locked(results / "a")
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    told = int(rest[-1]) if rest else last
    sweep = read_sweep(results, "a")
    assert told + 1 <= len(sweep.records) <= told + 2
    assert sweep.torn_lines <= 1
    assert sweep.info.status == "interrupted"
    assert not is_locked(results / "a")
    assert (results / "a" / LOCK).exists()


def test_an_opened_store_goes_on_where_it_was(results, make_info, make_record):
    with create_store(results, "a", make_info) as store:
        store.append(make_record(0.1))
        store.save(replace(store.state, status="stopped"))
    with (results / "a" / TRIALS).open("ab") as file:
        file.write(b'{"key": "torn')
    with open_store(results, "a") as store:
        assert store.info.status == "stopped"
        store.append(make_record(0.2))
    sweep = read_sweep(results, "a")
    assert [record.ratio for record in sweep.records] == [0.1, 0.2]
    assert sweep.torn_lines == 0  # taken away: its trial runs again
    assert sorted(path.name for path in (results / "a").iterdir()) == [LOCK, INFO, TRIALS]


def test_only_one_runs_a_sweep(results, make_info):
    with create_store(results, "a", make_info) as store:
        store.save(replace(store.state, pid=77, host="here"))
        sentence = (
            "sweep 'a' is running .process 77 on here.; 'sweep status a --results .*' shows how far it is,"
            " 'sweep stop a --results .*' ends it"
        )
        with pytest.raises(UsageError, match=sentence):
            open_store(results, "a")
    open_store(results, "a").close()
    with pytest.raises(UnknownNameError, match="unknown sweep 'b'"):
        open_store(results, "b")


def test_a_stop_that_was_left_ends_no_later_session(results, make_info):
    with create_store(results, "a", make_info) as store:
        store.stop_file.touch()
    (results / "a" / "stop").touch()
    with open_store(results, "a") as store:
        assert not store.stop_file.exists()


def test_how_many_are_under_way(results, make_info):
    with create_store(results, "a", make_info) as store:
        assert read_sweep(results, "a").running == 0
        store.live(7)
        assert read_sweep(results, "a").running == 7
        store.live(8)  # too soon to be written
        assert read_sweep(results, "a").running == 7
    assert read_sweep(results, "a").running == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/../b", "a\n", "a\x1b[2J", "x" * 300])
def test_a_path_is_no_name(tmp_path, results, make_info, name):
    create_store(results, "a", make_info).close()
    (tmp_path / INFO).write_text((results / "a" / INFO).read_text())
    with pytest.raises(UsageError, match=r"is no name but a path; 'sweep list --results .*' shows the names"):
        read_sweep(results, name)


@pytest.mark.parametrize("name", ["mlflow.db", "MLflow.db", "mlflow.db-wal", "mlartifacts", "lock", "stop"])
def test_names_that_the_results_folder_needs_are_refused(results, make_info, name):
    with pytest.raises(UsageError, match=r"the results folder has a file of that name; choose another --name"):
        create_store(results, name, make_info)
    assert not (results / name).exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("space", '"../../x"'), ("space", '"/tmp/x"'), ("name", '"../b"'), ("started_at", "1e300"), ("total", "1" * 400)],
)
def test_an_info_that_leads_astray_is_damaged(results, make_info, field, value):
    create_store(results, "a", make_info).close()
    path = results / "a" / INFO
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, field: "HERE"}).replace('"HERE"', value))
    with pytest.raises(StoreError, match=rf"sweep\.json: {field} = .*it was damaged or is of another version"):
        read_sweep(results, "a")


def test_a_folder_that_was_renamed_is_the_sweep_of_its_new_name(results, make_info, make_record):
    with create_store(results, "a", make_info) as store:
        store.append(make_record())
    (results / "a").rename(results / "b")
    with open_store(results, "b") as store:
        assert store.info.name == "b"
    assert len(read_sweep(results, "b").records) == 1


FOREIGN = [
    b'{"criterion": ["l1"]}',
    b'{"key": "k", "status": "finished", "config": {"criterion": ["l1"]}}',
    b'{"key": "k", "status": "finished", "config": {"decomposition": {"a": 1}}}',
    b'{"key": "k", "status": "finished", "config": {"options": [1]}}',
    b'{"key": "k", "status": "finished", "config": {"calibration": ["noise"], "decomposition": "least-squares"}}',
    b'{"key": "k", "status": "finished", "config": {"allocation": {}}}',
    b'{"key": "k", "status": "finished", "config": {}}',
    b'{"key": "k", "status": "finished", "config": {}, "metrics": {"accuracy": NaN, "params_fraction": 0.5}}',
    b'{"key": "k", "status": "failed", "config": {}, "started_at": 1e300}',
    b'{"key": "k", "status": "paused", "config": {}}',
    b'{"kind": "something-new", "key": "k"}',
    b'{"kind":"split","key":"k","split":"train"}',
    b"[1, 2]",
]
"""Whole lines, and no records."""
TORN = [b"[" * 100_000, b"\xff\x00" * 50, b'{"key": "k", "status"', b"nonsense"]


@pytest.mark.parametrize("line", [*FOREIGN, *TORN])
def test_one_line_that_is_no_record_is_counted_and_left_out(results, make_info, make_record, line):
    with create_store(results, "a", make_info) as store:
        store.append(make_record(0.1))
    path = results / "a" / TRIALS
    path.write_bytes(line + b"\n" + path.read_bytes())
    sweep = read_sweep(results, "a")
    assert (sweep.torn_lines, sweep.foreign_lines) == ((0, 1) if line in FOREIGN else (1, 0))
    assert [record.ratio for record in sweep.records] == [0.1]


def test_a_line_longer_than_any_record_is_one_damaged_line(results, make_info, make_record, monkeypatch):
    with create_store(results, "a", make_info) as store:
        store.append(make_record(0.1))
    path = results / "a" / TRIALS
    monkeypatch.setattr("sweep.storage.reader.LARGEST", 4096)
    path.write_bytes(b"x" * 20_000 + b"\n" + path.read_bytes())
    sweep = read_sweep(results, "a")
    assert (sweep.torn_lines, len(sweep.records)) == (1, 1)


@pytest.mark.parametrize("name", [INFO, TRIALS, LOCK, RESERVE, "live.json", "stop", "sweep.json.new", "live.json.new"])
def test_a_sweep_does_not_write_through_a_link(tmp_path, results, make_info, name):
    create_store(results, "a", make_info).close()
    target = tmp_path / "precious"
    own = results / "a" / name
    if own.exists():
        target.write_bytes(own.read_bytes())
    else:
        target.write_text("precious")
    before = target.read_bytes()
    own.unlink(missing_ok=True)
    own.symlink_to(target)
    with pytest.raises(StoreError, match=rf"{name} is a link, and a sweep would write to where it leads"):
        open_store(results, "a")
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", [TRIALS, LOCK, "live.json"])
def test_a_pipe_does_not_hold_a_reader_up(results, make_info, name):
    create_store(results, "a", make_info).close()
    (results / "a" / name).unlink(missing_ok=True)
    os.mkfifo(results / "a" / name)
    with pytest.raises(StoreError, match=rf"{name} is not a file; remove it"):
        read_sweep(results, "a")


@pytest.mark.parametrize("text", ['{"running": 1e999}', '{"running": -3}', "[]", "[" * 100_000, "\x00"])
def test_a_count_of_running_trials_that_is_none(results, make_info, text):
    with create_store(results, "a", make_info):
        (results / "a" / "live.json").write_text(text)
        assert read_sweep(results, "a").running == 0


@pytest.mark.parametrize("name", [RESERVE, "stop", "sweep.json.new"])
def test_a_pipe_does_not_hold_a_writer_up(results, make_info, name):
    create_store(results, "a", make_info).close()
    os.mkfifo(results / "a" / name)
    with pytest.raises(StoreError, match=rf"{name} is not a file, and a sweep would write to it; remove it"):
        open_store(results, "a")
