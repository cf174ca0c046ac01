"""Sweeps from Python: the same as on the command line, as frozen objects and tables."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from hypothesis import given
from hypothesis import strategies as st

import sweep
from core.errors import UnknownNameError, UsageError
from search_spaces.override import parse_value
from sweep.api import as_toml

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
numbers = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9)
values = st.recursive(words | numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@given(values | st.dictionaries(words, numbers, min_size=1, max_size=3))
def test_a_change_means_what_its_value_says(value: Any) -> None:
    assert parse_value(as_toml(value)) == value


def test_what_no_space_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be a value of a search space"):
        as_toml(object())


def test_a_space_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits-quick'"):
        sweep.run("digits-quik")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_python_and_the_command_line_get_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"ratio": [0.3, 0.9], "decomposition": "most-similar", "threshold": 0.45, "baseline.epochs": 2}
    result = sweep.run("digits-quick", changes=changes, results=tmp_path / "results", name="python", workers=2)
    assert "4/4 trials" in capsys.readouterr().err
    words = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    printed = json.loads(call(tmp_path, "run", "digits-quick", *words, "--name", "shell", "--json"))
    assert [record.key for record in result.front] == [point["key"] for point in reversed(printed["front"])]
    accuracies = {point["key"]: point["metrics"]["accuracy"] for point in printed["front"]}
    assert {record.key: record.metrics["accuracy"] for record in result.front} == accuracies
    assert (result.status, result.reason, len(result.trials)) == ("finished", "", 4)
    table, front = result.table, result.front_table
    assert len(table) == 4
    assert list(front["key"]) == [record.key for record in result.front]
    assert set(table["threshold"]) == {0.45}
    best = result.front[0]
    assert sum(p.numel() for p in result.model(best).parameters()) == best.metrics["params"]
    assert sweep.load("python", tmp_path / "results") == result
    assert "<table" in result._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.name = "other"  # type: ignore[misc]
    worse = next(record for record in result.trials if record not in result.front)
    with pytest.raises(UsageError, match=f"sweep export python .*--trial {worse.key}"):
        result.path(worse)


@pytest.mark.slow
def test_ray_may_have_been_imported_before(tmp_path: Path) -> None:
    """As in a notebook: Ray reads whether it needs a token when it is imported, and there is none yet."""
    words = "samples=2, changes={'baseline.epochs': 1}, progress=False, models=False"
    code = f"import ray, sweep; print(sweep.run('digits-quick', {words}).status)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "finished", done.stderr[-2000:]
