"""Every bad request: one sentence with the remedy, the right exit code, no traceback, nothing started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment

from core.errors import UsageError
from sweep.cli import VERBS, main
from sweep.storage.info import SweepInfo, SweepRequest, SweepState

LENET = ["compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5"]

CASES = {
    "unknown verb": (["rnu", "digits-quick"], 2, "unknown verb 'rnu'; did you mean 'run'?"),
    "unknown option": (
        ["run", "digits-quick", "--sampels", "3"],
        2,
        "unknown option '--sampels'; did you mean '--samples'",
    ),
    "abbreviated option": (
        ["run", "digits-quick", "--samp", "3"],
        2,
        "unknown option '--samp'; did you mean '--samples'",
    ),
    "extra argument": (["show", "digits-quick", "more"], 2, "unexpected argument 'more'; see 'sweep show --help'"),
    "missing argument": (["run"], 2, "the following arguments are required: SPACE; see 'sweep run --help'"),
    "no number": (["run", "digits-quick", "--samples", "many"], 2, "argument --samples: invalid int value: 'many'"),
    "nothing to look at": (["init"], 2, "the network is missing; such as: sweep init my_nets:make"),
    "no space's file": (["init", "lenet-5", "--out", "x.json"], 2, "--out x.json: a space is a file such as"),
    "unknown space": (["run", "digits-quik"], 2, "unknown search space 'digits-quik'; did you mean 'digits-quick'"),
    "missing file": (["show", "nowhere/x.toml"], 2, "nowhere/x.toml: there is no such file"),
    "unknown search": (["run", "digits-quick", "--search", "tpp"], 2, "did you mean 'tpe'"),
    "no samples": (["run", "digits-quick", "--samples", "0"], 2, "greater than or equal to 1"),
    "unknown key": (["run", "digits-quick", "--set", "ratoi=0.5"], 2, "did you mean 'ratio'"),
    "no value": (["run", "digits-quick", "--set", "ratio"], 2, "--set ratio: write --set KEY=VALUE"),
    "key twice": (
        ["show", "digits-quick", "--set", "ratio=0.1", "--set", "ratio=0.2"],
        2,
        "--set ratio is given twice",
    ),
    "bad name": (["run", "digits-quick", "--name", "../x"], 2, "--name '../x': use letters, digits"),
    "reserved name": (
        ["run", "digits-quick", "--name", "mlflow.db"],
        2,
        "--name 'mlflow.db': the results folder has a file of that name",
    ),
    "status of a path": (["status", "../x"], 2, "'../x' is no name but a path; 'sweep list' shows the names"),
    "status of nothing": (["status", ""], 2, "'' is no name but a path"),
    "watching a path": (["status", "../x", "--watch"], 2, "'../x' is no name but a path"),
    "resuming a path": (["resume", "../x"], 2, "'../x' is no name but a path"),
    "stopping a path": (["stop", "/tmp"], 2, "'/tmp' is no name but a path"),
    "syncing a path": (["sync", ".."], 2, "'..' is no name but a path"),
    "logs of a path": (["logs", "a/b"], 2, "'a/b' is no name but a path"),
    "front of a path": (["pareto", "."], 2, "'.' is no name but a path"),
    "learning from a path": (["run", "digits-quick", "--warm-start", "../x"], 2, "'../x' is no name but a path"),
    "negative seed": (["run", "digits-quick", "--seed", "-1"], 2, "--seed -1: give a whole number from 0"),
    "password for tracking": (
        ["run", "digits-quick", "--tracking-uri", "http://user:pa/ss@127.0.0.1:9"],
        1,
        "no MLflow server answers at http://…@127.0.0.1:9",
    ),
    "password for something else": (
        ["run", "digits-quick", "--tracking-uri", "xsql://user:pass@host/db?password=word"],
        2,
        "--tracking-uri xsql://…@host/db?password=…: give http",
    ),
    "odd server": (["run", "digits-quick", "--tracking-uri", "http://[x"], 1, "no MLflow server answers at http://[x"),
    "no worker": (["run", "digits-quick", "--workers", "0"], 2, "--workers 0: give at least 1"),
    "no GPU": (["run", "digits-quick", "--gpus-per-trial", "1"], 1, "this machine has no usable GPU"),
    "negative GPU": (["run", "digits-quick", "--gpus-per-trial", "-1"], 2, "--gpus-per-trial -1.0: give 0 or more"),
    "odd address": (["run", "digits-quick", "--address", "ray://x:1"], 2, "give HOST:PORT of the cluster's head"),
    "nobody at address": (
        ["run", "digits-quick", "--address", "127.0.0.1:9"],
        1,
        "no Ray cluster answers at 127.0.0.1:9",
    ),
    "odd tracking": (["run", "digits-quick", "--tracking-uri", "somewhere"], 2, "--tracking-uri somewhere: give http"),
    "no server": (["run", "digits-quick", "--tracking-uri", "http://127.0.0.1:9"], 1, "no MLflow server answers"),
    "unknown sweep to resume": (["resume", "nothing"], 2, "unknown sweep 'nothing'; none is known"),
    "unknown sweep to stop": (["stop", "nothing"], 2, "unknown sweep 'nothing'; none is known"),
    "unknown sweep to sync": (["sync", "nothing"], 2, "unknown sweep 'nothing'; none is known"),
    "unknown sweep's logs": (["logs", "nothing"], 2, "unknown sweep 'nothing'; none is known"),
    "unknown sweep to learn from": (["run", "digits-quick", "--warm-start", "nothing"], 2, "unknown sweep 'nothing'"),
    "list takes nothing": (["list", "x"], 2, "unexpected argument 'x'"),
    "a shell that is none": (["completion", "tcsh"], 2, "invalid choice: 'tcsh'"),
    "watching nothing": (["status", "--watch"], 2, "--watch needs the NAME of a sweep"),
    "odd time": (["run", "digits-quick", "--time-limit", "soon"], 2, "--time-limit soon: give a time above 0"),
    "no time": (["run", "digits-quick", "--trial-timeout", "0"], 2, "--trial-timeout 0: give a time above 0"),
    "no patience": (["run", "digits-quick", "--plateau", "0"], 2, "--plateau 0: give at least 1"),
    "race for something else": (
        ["run", "digits-quick", "--race", "--set", "search.objectives={loss='min', params='min'}"],
        2,
        "this space also optimises 'loss'; leave --race out",
    ),
    "unknown sweep": (["status", "nothing"], 2, "unknown sweep 'nothing'; none is known"),
    "report of what": (["report", "x"], 2, "unknown sweep 'x'"),
    "compare with what": (["compare", "x"], 2, "compare two sweeps or more"),
    "export of what": (["export", "x"], 2, "unknown sweep 'x'"),
    "unknown format of a network": (
        ["export", "x", "--front", "--format", "onx"],
        2,
        "unknown format 'onx'; did you mean",
    ),
    "a suffix that says nothing": ([*LENET, "--out", "a.pth"], 2, "--out a.pth: name the file .safetensors"),
    "a ratio and a target": ([*LENET, "--target", "drop <= 1"], 2, "give either --ratio, such as 0.5, or --target"),
    "a target that is none": ([*LENET[:-2], "--target", "drop < 1"], 2, "target = 'drop < 1': write METRIC <= NUMBER"),
    "unknown format": (["pareto", "x", "--format", "pgn"], 2, "unknown format 'pgn'; did you mean 'png'"),
    "nothing for the UI": (["ui"], 1, "there is no MLflow store in results yet; run a sweep first"),
    "unknown model": ([*LENET[:2], "lenet", *LENET[3:]], 2, "unknown model 'lenet'; did you mean 'lenet-300-100'"),
    "unknown dataset": ([*LENET[:4], "digit", *LENET[5:]], 2, "unknown dataset 'digit'; did you mean 'digits'"),
    "ratio too large": ([*LENET[:-1], "1.5"], 2, "ratio = 1.5"),
    "unknown criterion": ([*LENET, "--criterion", "l3"], 2, "unknown criterion 'l3'"),
    "unknown method": ([*LENET, "--decomposition", "most"], 2, "unknown decomposition 'most'"),
    "unknown option of it": ([*LENET, "--option", "treshold=1"], 2, "did you mean 'threshold'"),
    "option of another": ([*LENET, "--decomposition", "none", "--option", "threshold=1"], 2, "option of 'none'"),
    "no network": (["compress", "--ratio", "0.5"], 2, "give --model and --dataset, or --trial NAME/KEY"),
    "a trial and a ratio": (
        ["compress", "--trial", "x/048de93b", "--ratio", "0.5"],
        2,
        "--trial brings its own network and configuration: leave out --ratio",
    ),
    "a trial without its sweep": (["compress", "--trial", "048de93b"], 2, "--trial 048de93b: write NAME/KEY"),
    "a trial of an unknown sweep": (["compress", "--trial", "x/048de93b"], 2, "unknown sweep 'x'; none is known"),
    "a file of another format": ([*LENET, "--out", "small.pth"], 2, "name the file .safetensors, .pt2, .onnx"),
    "missing checkpoint": ([*LENET, "--checkpoint", "gone.pt"], 1, "checkpoint gone.pt does not exist"),
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_bad_requests(name, capsys):
    argv, code, sentence = CASES[name]
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.startswith("sweep: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not list(Path.cwd().glob("results/*")), "something was started"


def test_the_table_is_complete():
    assert len(CASES) >= 30
    assert {argv[0] for argv, _, _ in CASES.values()} >= set(VERBS) - {"spaces"}


def test_a_port_in_use(capsys):
    (Path("results")).mkdir()
    Path("results/mlflow.db").touch()
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 1
    assert f"port {port} cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_one_screen_with_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"sweep {verb}" in out
    assert "example:" in out
    assert len(out.splitlines()) <= 42


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {verb} " in overview for verb in VERBS)
    assert main([]) == 2
    capsys.readouterr()
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sweep 0.")


def test_a_bug_is_one_sentence_and_a_log(monkeypatch, capsys):
    def broken(_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("sweep.cli.dispatch", broken)
    assert main(["spaces"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    log = Path(err.strip().rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_an_error_of_several_lines_is_one(monkeypatch, capsys):
    def refused(_):
        raise UsageError("first,\n  then second")

    monkeypatch.setattr("sweep.cli.dispatch", refused)
    assert main(["spaces"]) == 2
    assert capsys.readouterr().err == "sweep: first, then second\n"


def test_a_closed_pipe_is_no_error():
    """As in ``sweep spaces | head -1``."""
    program = "import sys; from sweep.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, env=environment())
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def test_ctrl_c(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sweep.cli.dispatch", interrupted)
    assert main(["spaces"]) == 130
    assert capsys.readouterr().err == "sweep: interrupted; 'sweep list' shows what is kept\n"


def test_spaces_and_show(capsys):
    import json

    assert main(["spaces", "--json"]) == 0
    listed = {space["name"]: space["trials"] for space in json.loads(capsys.readouterr().out)}
    assert listed["digits-quick"] == 32
    assert main(["show", "digits-quick", "--set", "ratio=0.5", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["trials"], shown["fixed"]) == (8, {"ratio": "0.5"})
    assert main(["show", "digits-quick"]) == 0
    assert "ratio: 0.3, 0.5, 0.7, 0.9" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert "no sweep in results" in capsys.readouterr().out


def test_a_refusal_does_not_wait_for_torch():
    """Help, and every word that is refused at once, come in a fraction of a second."""
    program = "import sys; from sweep.cli import main; main(['run', '--sampels']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 0


def test_no_message_shows_a_password(monkeypatch, capsys):
    def broken(_):
        raise ValueError("cannot reach 'postgresql://user:word@host/db' or s3://KEY:SEC/RET@bucket")

    monkeypatch.setattr("sweep.cli.dispatch", broken)
    assert main(["run", "digits-quick", "--results", "s3://KEY:SEC/RET@bucket"]) == 1
    err = capsys.readouterr().err
    assert "'postgresql://…@host/db' or s3://…@bucket" in err
    log = Path(err.strip().rpartition(" ")[2])
    assert not any(word in err + log.read_text() for word in ("word@", "KEY", "RET"))
    assert log.stat().st_mode & 0o077 == 0
    log.unlink()


def test_one_unreadable_sweep_does_not_hide_the_others(capsys):
    for name in ("good", "bad"):
        (Path("results") / name).mkdir(parents=True)
        info = SweepInfo(SweepRequest(name="good", space="toy", resolved={}, search="grid"), SweepState(total=1))
        (Path("results") / name / "sweep.json").write_text(info.to_json())
        (Path("results") / name / "trials.jsonl").touch()
    (Path("results") / "bad" / "sweep.json").write_text("{")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "good: interrupted" in out
    assert "bad/sweep.json" in out
