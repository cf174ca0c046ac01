"""The faults that a change is most likely to break, once each; ``make faults`` injects all of them, ten times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.bed import References
from benchmarks.faults.counts import Result
from benchmarks.faults.perform import perform, undisturbed
from benchmarks.faults.scenarios import SCENARIOS
from benchmarks.faults.table import HEAD, rows_of, write_row

IN_CI = ("worker", "driver", "server", "disk-full")
TABLE = Path(__file__).parents[2] / "docs" / "reliability.md"
GOOD = Result(340, 340, 340, 0, 340, 340, 1, 0, True, True)


@pytest.fixture(scope="module")
def references() -> Iterator[References]:
    with undisturbed() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_CI)
def test_a_fault_leaves_no_trace(references, name):
    if SCENARIOS[name].disk and os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    result = perform(SCENARIOS[name], references, f"ci-{name}")
    assert result.perfect, result
    assert result.expected > 90


def test_every_fault_has_its_row():
    assert len(SCENARIOS) == 17
    lines = TABLE.read_text().splitlines()
    titles = [lines[number].split(" | ")[0].removeprefix("| ") for number in rows_of(lines)]
    assert sorted(titles) == sorted(scenario.title for scenario in SCENARIOS.values())


@pytest.mark.parametrize(
    "change",
    [
        {"distinct": 339},
        {"records": 341},
        {"records": 341, "damaged": 1},
        {"runs": 341},
        {"runs": 339, "distinct_runs": 339},
        {"parents": 2},
        {"half": 1},
        {"same_front": False},
        {"same_records": False},
        {"problems": ("a traceback",)},
    ],
)
def test_whatever_is_wrong_is_seen(change):
    assert GOOD.perfect
    assert not Result(**{**vars(GOOD), **change}).perfect


def test_a_row_is_written_once(tmp_path):
    path = tmp_path / "table.md"
    path.write_text(f"before\n\n{HEAD}\n|---|\n| other | x |\n\nafter\n")
    write_row(path, "fault", "how", [GOOD])
    write_row(path, "fault", "how", [GOOD, Result(**{**vars(GOOD), "distinct": 339, "same_front": False})])
    row = "| fault | how | 2 | 680 | 679 | 680 | 1 | 1 | 1/2 |"
    assert path.read_text() == f"before\n\n{HEAD}\n|---|\n| other | x |\n{row}\n\nafter\n"
