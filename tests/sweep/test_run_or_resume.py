"""``sweep run --resume``: the same command begins a sweep, and goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, lines_of

from search_spaces import load_space
from sweep.cli import main
from sweep.runner import RunRequest, first_info
from sweep.storage.writer import create_store

BEGIN = ("run", "digits-quick", "--name", "nightly", "--resume")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A sweep that was begun; the list gets the options with which it would be gone on with."""
    monkeypatch.chdir(tmp_path)
    asked = RunRequest(load_space("digits-quick", {"search.samples": "6"}), Path("results"), "nightly")
    create_store(asked.results, "nightly", lambda name: first_info(asked, name, "")).close()
    resumed: list[object] = []
    monkeypatch.setattr("sweep.commands.resume.run", lambda options: resumed.append(options) or 0)
    return resumed


@pytest.mark.parametrize("more", [(), ("--samples", "9"), ("--workers", "1"), ("--no-models",)])
def test_the_same_sweep_is_gone_on_with(there, more):
    assert main([*BEGIN, *more]) == 0
    (options,) = there
    assert options.name == "nightly"
    assert options.samples == (9 if "--samples" in more else None)
    assert options.models is (False if "--no-models" in more else None)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--set", "ratio=0.5"), "(axes, fixed)"),
        (("--set", "baseline.epochs=1"), "(baseline)"),
        (("--search", "random"), "(search)"),
        (("--seed", "1"), "(seed)"),
        (("--warm-start", "x"), "(--warm-start)"),
    ],
)
def test_another_one_is_refused(there, capsys, more, what):
    assert main([*BEGIN, *more]) == 2
    assert f"sweep 'nightly' is there, and began otherwise {what}: take another --name" in capsys.readouterr().err
    assert there == []


def test_a_name_is_needed(capsys):
    assert main(["run", "digits-quick", "--resume"]) == 2
    assert "--resume goes on with a sweep of a certain name: give --name too" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_is_begun_and_gone_on_with_by_one_command(tmp_path: Path) -> None:
    words = (*BEGIN, "--workers", "1", "--no-models", "--search", "random")
    call(tmp_path, *words, "--samples", "2")
    lines = lines_of(tmp_path, "nightly")
    done = json.loads(call(tmp_path, *words, "--samples", "4", "--json"))
    assert done["status"] == "finished"
    assert lines_of(tmp_path, "nightly") > lines
