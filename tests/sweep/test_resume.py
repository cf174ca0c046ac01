"""Sweeps that end early and go on, through the command line: real network, real Ray, real MLflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import COMMAND, call, child_keys, environment, started, wait_for, wait_for_lines

from sweep.search.base import TAKEN_FROM
from sweep.storage.reader import read_sweep

pytestmark = pytest.mark.slow
RATIOS = ",".join(f"{number / 500:g}" for number in range(1, 400))
BASE = ["digits-quick", "--set", "baseline.epochs=2", "--set", "criterion=l1", "--workers", "2"]
LONG = [*BASE, "--set", f"ratio=[{RATIOS}]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resumed")


def results(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """What each trial came to, but for what is timed."""
    return {
        record.key: {key: value for key, value in record.metrics.items() if not key.startswith(("latency", "idle_"))}
        for record in read_sweep(folder / "results", name).records
    }


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, dict[str, float]]:
    """A TPE search that nothing disturbed."""
    call(folder, "run", *LONG, "--search", "tpe", "--samples", "150", "--seed", "3", "--name", "whole")
    return results(folder, "whole")


def test_a_search_that_is_stopped_goes_on_to_the_same_trials(folder, whole):
    process = started(folder, "run", *LONG, "--search", "tpe", "--samples", "150", "--seed", "3", "--name", "parts")
    wait_for_lines(folder, "parts", 10)
    told = call(folder, "stop", "parts")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ended early: 'sweep stop'; 'sweep resume parts' goes on" in out
    assert "sweep 'parts' stopped," in told
    done = len(read_sweep(folder / "results", "parts").records)
    assert 10 <= done < 150
    assert "is not running (stopped)" in call(folder, "stop", "parts")
    resumed = json.loads(call(folder, "resume", "parts", "--json"))
    assert resumed["status"] == "finished"
    assert results(folder, "parts") == whole
    assert sorted(child_keys(folder, resumed["mlflow"]["run_id"])) == sorted(whole)
    assert "parts" in call(folder, "list")


def test_more_samples_go_on_from_the_end(folder, whole):
    assert "every trial is there already" in started_and_ended(folder, "resume", "whole")
    more = json.loads(call(folder, "resume", "whole", "--samples", "155", "--json"))
    assert more["metrics"]["trials_finished"] == 155
    assert whole.items() <= results(folder, "whole").items()
    assert len(child_keys(folder, more["mlflow"]["run_id"])) == 155


def started_and_ended(folder: Path, *words: str) -> str:
    process = started(folder, *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    return err


def test_a_time_limit_and_a_plateau_end_a_sweep_in_good_order(folder, whole):
    """Of more trials than any machine does in that time."""
    words = ["--search", "random", "--samples", "50000", "--name", "limited", "--time-limit", "15s", "--json"]
    limited = json.loads(call(folder, "run", *BASE, "--set", "ratio={ low = 0.05, high = 0.95 }", *words))
    assert (limited["status"], limited["message"]) == ("stopped", "its time limit of 15 s is over")
    sweep = read_sweep(folder / "results", "limited")
    assert 0 < len(sweep.records) < sweep.info.state.total
    flat = json.loads(call(folder, "resume", "limited", "--plateau", "40", "--time-limit", "5m", "--json"))
    assert flat["message"] == "the front has not grown for 40 trials"
    assert len(read_sweep(folder / "results", "limited").records) >= len(sweep.records) + 40


def test_a_warm_start_runs_nothing_twice(folder, whole):
    words = ["--search", "tpe", "--samples", "12", "--seed", "9", "--name", "warm", "--warm-start", "parts"]
    warm = json.loads(call(folder, "run", *LONG, *words, "--json"))
    records = read_sweep(folder / "results", "warm").records
    taken = {record.key for record in records if TAKEN_FROM in record.provenance}
    assert taken == set(results(folder, "parts"))
    assert len(records) == len(taken) + 12 == len({record.key for record in records})
    assert len(child_keys(folder, warm["mlflow"]["run_id"])) == len(records)


def test_racing_gives_the_same_front_from_fewer_images(folder, whole):
    words = [*BASE, "--set", "evaluation.split=test", "--json"]  # more images than one batch
    full = json.loads(call(folder, "run", *words, "--name", "full"))
    raced = json.loads(call(folder, "run", *words, "--name", "raced", "--race"))
    assert [point["metrics"]["accuracy"] for point in raced["front"]] == [
        point["metrics"]["accuracy"] for point in full["front"]
    ]
    records = read_sweep(folder / "results", "raced").records
    images = len(records) * max(record.images for record in records)
    assert sum(record.images for record in records) < images
    assert {"finished", "stopped"} == {record.status for record in records}
    assert "stopped early" in call(folder, "status", "raced")


def test_two_sweeps_at_once_and_the_same_name_twice(folder, whole):
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(outcome, folder, name) for name in ("one", "two", "two")]
    codes = sorted((run.result().returncode, run.result().stderr.count("is there already")) for run in runs)
    assert codes == [(0, 0), (0, 0), (2, 1)]
    assert results(folder, "one") == results(folder, "two")
    for name in ("one", "two"):
        state = read_sweep(folder / "results", name).info.state
        assert len(child_keys(folder, state.run_id)) == state.total == 16


def outcome(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    process = started(folder, "run", *BASE, "--name", name)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_mlflow_is_rebuilt_from_the_store(folder, whole):
    uri = f"sqlite:///{folder / 'other.db'}"
    told = call(folder, "sync", "parts", "--tracking-uri", uri)
    assert told == call(folder, "sync", "parts", "--tracking-uri", uri), "a second one finds everything"
    assert told.startswith("150 trials of 'parts' are in MLflow, run ")
    with sqlite3.connect(folder / "other.db") as database:
        (count,) = database.execute("select count(*) from runs").fetchone()
    assert count == 151


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, None])
def test_a_training_that_is_broken_off_goes_on_after_its_last_epoch(tmp_path, number):
    """By the same command; meanwhile other commands say what the sweep is doing."""
    words = ["run", "digits-quick", "--set", "baseline.epochs=250", "--samples", "2", "--name", "a"]
    process = started(tmp_path, *words)
    try:
        (kept,) = wait_for(lambda: list(tmp_path.glob("results/.baselines/*.training")))
        os.killpg(process.pid, signal.SIGSTOP)  # a quick machine has trained it before the next commands are there
        assert re.search(r"^a +training ", call(tmp_path, "list"), re.MULTILINE)
        assert "training its original network, epoch" in call(tmp_path, "status", "a")
        os.killpg(process.pid, signal.SIGCONT)
        if number is None:
            assert "had tried nothing yet" in call(tmp_path, "stop", "a")
            process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, number or signal.SIGKILL)
        _, told = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, None: 1}.get(number, -(number or 0))
    assert ("stopped while the original network is trained" in told) == (number is None)
    assert "lenet-300-100 is trained on digits first: 250 epochs" in told
    assert re.search(r"about \d+ .*left; whatever breaks it off, the same command goes on", told)
    assert kept.exists()
    shutil.rmtree(tmp_path / "results" / "a", ignore_errors=True)  # after kill -9 the name is taken
    where = {"cwd": tmp_path, "env": environment()}
    again = subprocess.run([*COMMAND, *words], **where, capture_output=True, text=True, check=True)
    assert re.search(r"goes on after epoch \d+/250", again.stderr)
    assert not kept.exists()
    assert "finished: 2 of 2 trials" in again.stdout
