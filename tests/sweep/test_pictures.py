"""The pictures of ``sweep pareto`` and ``sweep compare``, on sweeps that an older release wrote."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from dashboards.style import DARK
from sweep.cli import main
from sweep.storage.reader import read_sweep

FIXTURES = Path(__file__).parents[1] / "fixtures" / "results-v1"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(FIXTURES, tmp_path / "results"))


def test_compare_writes_the_pictures_that_are_asked_for(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "grid", "tpe", "--out", "both.html", "--format", "png,svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["picture"], found["pictures"]) == ("both.html", "both.png", ["both.png", "both.svg"])
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("both.svg").read_text()
    assert main(["compare", "grid", "tpe"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["results/compare.html", "results/compare.png"]
    assert not Path("results/compare.svg").exists()


def test_the_picture_of_compare_is_dark_where_that_is_asked_for(old: Path) -> None:
    assert main(["compare", "grid", "tpe", "--format", "svg"]) == 0
    light = Path("results/compare.svg").read_text()
    assert main(["compare", "grid", "tpe", "--format", "svg", "--dark"]) == 0
    dark = Path("results/compare.svg").read_text()
    assert DARK.paper in dark
    assert DARK.paper not in light


def test_several_fronts_are_one_table_by_sweep(old: Path) -> None:
    assert main(["pareto", "grid", "tpe", "--format", "json"]) == 0
    found = json.loads(Path("results/fronts.json").read_text())
    assert list(found) == ["grid", "tpe"]
    for name, front in found.items():
        assert main(["pareto", name, "--format", "json", "--out", name]) == 0
        assert json.loads(Path(name, "front.json").read_text()) == front


def test_the_page_of_compare_is_not_written_over_by_its_picture(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "grid", "tpe", "--out", "both.png"]) == 2
    assert "--out both.png: that is the page; write --out both.html" in capsys.readouterr().err
    assert not Path("both.png").exists()


def test_a_sweep_that_has_no_network_yet_is_compared_without_a_front(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = json.loads((old / "tpe" / "sweep.json").read_text())
    (old / "tpe" / "sweep.json").write_text(json.dumps({**state, "original": {}}))
    (old / "tpe" / "trials.jsonl").write_text("")
    assert main(["compare", "grid", "tpe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hypervolume"]["tpe"] == 0.0
    assert "grid" in Path("results/compare.html").read_text()


def test_fronts_over_other_sizes_are_files_of_their_own(old: Path) -> None:
    assert main(["pareto", "grid", "tpe", "--format", "svg"]) == 0
    assert main(["pareto", "grid", "tpe", "--format", "svg", "--x", "macs"]) == 0
    macs, params = (Path(f"results/fronts{suffix}.svg").read_text() for suffix in ("-macs", ""))
    assert "multiply-accumulates" in macs
    assert "parameters left" in params


def test_the_table_of_all_trials_has_every_digit(old: Path) -> None:
    assert main(["pareto", "grid", "--format", "csv", "--all"]) == 0
    records = {record.key: record for record in read_sweep(old, "grid").records}
    with (old / "grid" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records) > 3
    for row in rows:
        record = records[row["key"]]
        assert {name: float(row[name]) for name in record.metrics if name in row} == record.metrics
        assert float(row["seconds"]) == record.seconds
        if record.metrics:
            assert row["params"] == f"{record.metrics['params']:.0f}"
