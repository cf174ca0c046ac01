"""What a user is told to type next, why trials failed in few lines, and the same as data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UsageError
from core.records import TrialRecord
from sweep.cli import main
from sweep.errors import StoreError
from sweep.export import choose
from sweep.reporting.failures import MOST, failure_lines, grouped, sentence
from sweep.reporting.status import as_text
from sweep.storage.address import place
from sweep.storage.layout import INFO, MIRRORED, TRIALS
from sweep.storage.reader import read_sweep, require_sweep
from sweep.storage.writer import create_store
from sweep.tracking import TrackingReport

TRACEBACK = 'Traceback (most recent call last):\n  File "/home/me/a.py", line 3, in f\nValueError: no luck\n'
OUT_OF_MEMORY = "RuntimeError: tried to allocate {} bytes for 'feature.{}'\n  more of it"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_info, make_record) -> Path:
    """A results folder in a place with a space in its name, with a sweep that ended early."""
    monkeypatch.chdir(tmp_path)
    folder = Path("my results")
    store = create_store(folder, "toy", lambda name: make_info(name, total=9))
    store.append(make_record(0.3))
    for number in range(3):
        store.append(make_record(0.5 + number / 10, reason=OUT_OF_MEMORY.format(10**9 + number, number)))
    store.save(replace(store.state, status="stopped", message="'sweep stop'"))
    store.close()
    return folder


@pytest.mark.parametrize(
    ("folder", "option"),
    [("results", ""), ("./results", ""), ("other", " --results other"), ("my results", " --results 'my results'")],
)
def test_the_folder_is_named_where_it_is_not_the_usual_one(folder: str, option: str) -> None:
    assert place(Path(folder)) == option


def test_a_copy_of_a_folder_in_object_storage_is_named_by_its_address(tmp_path: Path) -> None:
    (tmp_path / MIRRORED).write_text(json.dumps({"uri": "s3://bucket/path", "files": {}}))
    assert place(tmp_path) == " --results s3://bucket/path"
    (tmp_path / MIRRORED).write_text("[")
    assert place(tmp_path) == f" --results {tmp_path}"


def test_every_command_that_is_advised_finds_the_folder(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands are taken from the messages and run, so that one that leads elsewhere fails."""
    option = " --results 'my results'"
    sweep = read_sweep(elsewhere, "toy")
    told = "\n".join(as_text(sweep))
    assert f"sweep resume toy{option}" in told
    assert f"sweep logs toy{option}" in told
    assert choose.status_of(sweep) == f"sweep status toy{option}"
    with pytest.raises(UsageError, match=f"'sweep list{option}' shows the names"):
        require_sweep(elsewhere, "../toy")
    with pytest.raises(UsageError, match=f"go on with 'sweep resume toy{option}'"):
        create_store(elsewhere, "toy", lambda name: sweep.info)
    assert main(["ui", "--results", "my results"]) == 1
    assert f"'sweep run digits-quick{option}'" in capsys.readouterr().err
    assert main(["list", "--results", "empty"]) == main(["status", "--results", "empty"]) == 0
    assert capsys.readouterr().out.count("'sweep run digits-quick --results empty'") == 2


@pytest.mark.parametrize("words", [["--results", "my results"], ["--results=my results"]])
def test_ctrl_c_names_the_folder_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweep.cli.dispatch", interrupted)
    assert main(["run", "digits-quick", *words]) == 130
    assert "'sweep list --results 'my results'' shows" in capsys.readouterr().err


def test_failures_that_differ_in_numbers_and_names_are_of_one_kind() -> None:
    reasons = {OUT_OF_MEMORY.format(7, 1): 2, OUT_OF_MEMORY.format(9, 4): 3, "the outputs are not finite": 4}
    assert grouped(reasons) == {
        "RuntimeError: tried to allocate 9 bytes for 'feature.4' (and 1 alike in other words)": 5,
        "the outputs are not finite": 4,
    }


def test_a_reason_is_one_line_and_no_traceback() -> None:
    assert sentence(TRACEBACK) == "ValueError: no luck"
    assert sentence("first\nsecond") == "first"
    assert sentence(" \n") == "no reason was given"
    assert len(sentence("x" * 5000)) <= 202


def test_only_the_most_frequent_kinds_are_listed() -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven")
    lines = list(failure_lines(dict(zip(words, range(9, 2, -1), strict=True)), "sweep logs toy"))
    assert lines[0] == "9 failed: one"
    assert len(lines) == MOST + 1
    assert lines[-1] == "7 failed in 2 other ways; each of them:  sweep logs toy"
    assert list(failure_lines({}, "sweep logs toy")) == []


def test_status_tells_the_kinds_and_its_data_the_reasons(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "toy", "--results", "my results"]) == 0
    out = capsys.readouterr().out
    assert "3 failed: RuntimeError: tried to allocate 1000000000 bytes" in out
    assert "more of it" not in out
    assert main(["status", "toy", "--results", "my results", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["reasons"]) == 3


def test_logs_as_data(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "toy", "--results", "my results", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in found] == ["failed"] * 3
    assert found[0]["reason"] == OUT_OF_MEMORY.format(10**9, 0)
    assert main(["logs", "toy", "--results", "my results", "--json", "--trial", found[1]["key"][:8]]) == 0
    assert json.loads(capsys.readouterr().out) == [found[1]]


def test_logs_as_data_of_a_sweep_that_tells_nothing(
    elsewhere: Path, make_record, capsys: pytest.CaptureFixture[str]
) -> None:
    record: TrialRecord = make_record(0.3)
    (elsewhere / "toy" / TRIALS).write_text(record.model_dump_json() + "\n")
    assert main(["logs", "toy", "--results", "my results", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_stop_as_data(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "toy", "--results", "my results", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "toy", "status": "stopped", "trials": 4, "total": 9}


@pytest.mark.parametrize("problem", ["", "no answer"])
def test_sync_as_data(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    """MLflow itself is left out; what it says of a failure advises the same folder."""
    monkeypatch.setattr("sweep.tracking.sync.sync", lambda *_: TrackingReport("r1", 4, 0, ""))
    monkeypatch.setattr("sweep.tracking.sync.target", lambda *_: "sqlite:///x")
    monkeypatch.setattr("sweep.export.models.log_models", lambda *_: problem)
    code = main(["sync", "toy", "--results", "my results", "--json"])
    out, err = capsys.readouterr()
    if problem:
        assert (code, out) == (1, "")
        assert "(no answer); 'sweep sync toy --results 'my results'' tries again" in err
    else:
        assert code == 0
        assert json.loads(out) == {"name": "toy", "run_id": "r1", "logged": 4}


def test_a_sweep_of_which_only_the_trials_are_left_is_listed(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(elsewhere / "toy", elsewhere / "headless")
    (elsewhere / "headless" / INFO).unlink()
    assert main(["list", "--results", "my results"]) == 0
    assert "headless  damaged" in capsys.readouterr().out
    with pytest.raises(StoreError, match=r"sweep.json is missing; restore it .* delete my results/headless"):
        read_sweep(elsewhere, "headless")
