"""What the terminal shows and takes: lists, tables that fit, a front of letters, copied spaces, completed lines."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import load_space
from search_spaces.schema import bundled
from sweep.cli import VERBS, main
from sweep.commands.status import picture
from sweep.reporting.finished import Finished
from sweep.reporting.meter import progress_of
from sweep.reporting.outcome import make_outcome
from sweep.reporting.progress import PlainReporter
from sweep.runner import warn
from sweep.storage.info import ClusterRequest
from sweep.storage.layout import INFO
from sweep.storage.reader import read_sweep
from sweep.tracking import TrackingReport

FIXTURES = Path(__file__).parents[1] / "fixtures" / "results-v1"
BESIDE = str(Path(sys.executable).parent)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(FIXTURES, tmp_path / "results"))


@pytest.mark.parametrize("name", sorted(bundled()))
def test_a_copied_space_means_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["spaces", "--copy", name, "mine.toml"]) == 0
    ours, theirs = load_space("mine.toml"), load_space(name)
    assert ours.name == "mine"
    assert {**ours.document, "name": name} == theirs.document
    text = Path("mine.toml").read_text()
    assert "sweep run mine.toml" in text
    assert "threshold" in text.partition("\nname = ")[0], "what may vary is listed"
    assert max(map(len, text.partition("\nname = ")[0].splitlines())) <= 120
    assert tomllib.loads(text)


def test_a_copy_replaces_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("mine")
    assert main(["spaces", "--copy", "digits-quick", "mine.toml"]) == 2
    assert "mine.toml is there already; take --force" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "mine"
    assert main(["spaces", "--copy", "digits-quick", "mine.toml", "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--copy", "digits-quik", "a.toml"], "did you mean 'digits-quick'"),
        (["--copy", "digits-quick", "a.json"], "a space is a file such as my-space.toml"),
        (["--copy", "digits-quick", "gone/../.toml"], "a space is a file such as my-space.toml"),
        (["--force"], "--force replaces the file of --copy"),
    ],
)
def test_what_cannot_be_copied(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", *words]) == 2
    assert says in capsys.readouterr().err


def test_sweeps_are_listed_as_they_were_started_and_damaged_ones_too(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {"broken": "damaged", "tpe": "finished", "grid": "finished"}
    for place, name in enumerate(["tpe", "grid"]):
        path = old / name / INFO
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "started_at": 1000.0 + place}))
    (old / "broken").mkdir()
    (old / "broken" / INFO).write_text("{")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["broken", "damaged"],
        ["tpe", "finished"],
        ["grid", "finished"],
    ]
    assert "it is no JSON" in lines[4]
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["status"] for row in rows} == states


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_table_fits_the_terminal(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["status", "grid"]) == 0
    text = capsys.readouterr().out
    table = text[text.index("rank") :].splitlines()
    assert max(map(len, table)) <= width
    front = json.loads((FIXTURES / "grid" / "front.json").read_text())["front"]
    digits = 8 if width <= 100 else 16
    assert [line.split()[-1] for line in table[2:]] == [p["key"][:digits] for p in front]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_fits_the_terminal(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name = "a-sweep-with-a-rather-long-name"
    (old / "grid").rename(old / name)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert {line.split()[0] for line in lines[1:]} == {name, "tpe"}, "names are never cut"
    assert ("hypervolume" in lines[0]) == (width == 120)


def test_watching_repaints_what_fits_and_shows_all_in_the_end(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    sweep = read_sweep(old, "grid")
    long_reason = replace(sweep.info.state, message="it was broken off because of " + "this and that " * 20)
    sweep = replace(sweep, info=replace(sweep.info, state=long_reason))
    seen, last = (picture(sweep, as_data=False, in_place=True, whole=whole) for whole in (False, True))
    lines = seen.removeprefix("\033[H").removesuffix("\033[J").splitlines()
    assert len(lines) == 19
    assert all(line.endswith("\033[K") and len(line.removesuffix("\033[K")) <= 60 for line in lines)
    assert any("o" in line.partition("|")[2] for line in lines), "the front is drawn"
    assert "more lines when it has ended" in lines[-1]
    assert seen.startswith("\033[H")
    assert seen.endswith("\033[J")
    front = json.loads((FIXTURES / "grid" / "front.json").read_text())["front"]
    assert all(point["key"][:8] in last for point in front)
    assert long_reason.message.strip() in last


def test_best_is_rank_1_and_of_equal_ones_the_smallest(make_record) -> None:
    records = [make_record(ratio, accuracy=90.0) for ratio in (0.1, 0.3, 0.7, 0.5)]
    for _ in range(5):
        random.Random(0).shuffle(records)
        best = progress_of(records, 4, 10.0).best
        assert best is not None
        assert best.ratio == 0.7


def test_trials_of_an_earlier_session_say_nothing_of_the_rate(make_record) -> None:
    earlier = [make_record(number / 200, started_at=1000.0) for number in range(100)]
    now = [make_record(0.6 + number / 100, started_at=5000.0 + number / 10) for number in range(10)]
    progress = progress_of([*earlier, *now], 210, 5001.1, since=4999.0)
    assert progress.rate == pytest.approx(10 / 1.1)
    assert progress.done == 110


def completions(line: str, folder: Path) -> set[str]:
    """What bash offers at the end of ``line``, asked as it asks."""
    script = f"""
source <({BESIDE}/sweep completion bash)
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9 COMP_KEY=9
read -ra COMP_WORDS <<< "$COMP_LINE"; [[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete sweep
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{BESIDE}:{os.environ['PATH']}"}
    words = ["bash", "-c", script]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.skipif(not (Path(BESIDE) / "sweep").exists(), reason="the command is not installed")
def test_bash_completes_verbs_options_spaces_sweeps_and_parts(old: Path) -> None:
    folder = old.parent
    assert completions("sweep ", folder) == set(VERBS)
    assert completions("sweep run digits-", folder) == {"digits-quick"}
    assert completions("sweep status ", folder) >= {"grid", "tpe"}
    assert completions("sweep export grid --max-", folder) == {"--max-drop"}
    assert completions("sweep run x --search n", folder) == {"nsga2"}
    assert completions("sweep compress --criterion ob", folder) == {"obs"}
    assert completions("sweep pareto grid --plot acc", folder) == {"accuracy-by-ratio"}
    assert completions("sweep status --results s3://nowhere/x ", folder) >= set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_ones_that_the_shells_can_read(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "sweep" in script.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "words", [["run", "digits-quick"], ["resume", "tpe"], ["sync", "grid"], ["ui", "--port", "5999"]]
)
def test_a_damaged_store_of_mlflow_is_named_with_the_remedy(
    old: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (old / "mlflow.db").write_text("this was a database once")
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "mlflow.db is damaged (file is not a database); delete it" in told
    assert "sweep sync" in told


def test_many_more_workers_than_cpus_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    many = 5 * (os.cpu_count() or 1)
    for cluster in (ClusterRequest(workers=many), ClusterRequest(workers=1), ClusterRequest(many, 0, "head:6379")):
        warn(cluster, PlainReporter(sys.stderr))
    assert capsys.readouterr().err.count(f"warning: {many} workers share") == 1


def test_a_sweep_without_a_result_does_not_end_with_0(old: Path) -> None:
    """As one whose time limit ran out before its first trial."""
    sweep = read_sweep(old, "grid")
    nothing = make_outcome(replace(sweep, records=[]), formats=())
    tracked = TrackingReport("", 0, 0, "")
    assert Finished(nothing, tracked, "the time limit of 1 s is over").exit_code == 1
    assert Finished(make_outcome(sweep, formats=()), tracked).exit_code == 0
