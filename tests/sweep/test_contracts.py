"""What is on a user's disk keeps working: sweeps as they were written before, of other versions, of unknown parts."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from command_line import call, child_keys
from pydantic import create_model

from core.config import TrialConfig
from core.decompositions import DECOMPOSITIONS
from core.decompositions.least_squares import LeastSquares
from core.errors import UsageError
from core.pareto import pareto_front
from search_spaces import parse_space
from sweep.cli import main
from sweep.filing import fronts_of, lacking_test
from sweep.search.base import Plan, make_planner
from sweep.storage import info as info_module
from sweep.storage.info import SweepRequest, parse_info, require_key_version, resampled
from sweep.storage.reader import read_sweep
from sweep.storage.writer import open_store

FIXTURES = Path(__file__).parents[1] / "fixtures" / "results-v1"
OLD = {"grid": 18, "tpe": 20}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES, tmp_path / "results"))


def lines(results: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (results / name / "trials.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("name", "count"), OLD.items())
def test_an_old_sweep_reads_as_it_was(old: Path, name: str, count: int) -> None:
    sweep = read_sweep(old, name)
    assert (len(sweep.records), sweep.torn_lines, sweep.foreign_lines) == (count, 0, 0)
    assert {record.split for record in sweep.records} == {"test"}
    front = json.loads((FIXTURES / name / "front.json").read_text())["front"]
    assert {record.key for record in pareto_front(sweep.records)} == {entry["key"] for entry in front}
    assert all(TrialConfig.parse(record.config).key == record.key for record in sweep.records)


@pytest.mark.parametrize(("name", "count"), OLD.items())
def test_an_old_sweep_has_nothing_left_to_run(old: Path, name: str, count: int) -> None:
    sweep = read_sweep(old, name)
    request = sweep.info.request
    space = parse_space(resampled(request, None), name)
    assert space.evaluation.split == "test"
    planner = make_planner(Plan(space, request.seed, sweep.records, sweep.info.state.lag, (), request.race))
    asked = planner.ask()
    assert (planner.total, asked, planner.exhausted) == (count, None, True)


def test_a_sweep_goes_on_with_the_defaults_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those it wrote down, or those of key version 1; another default today changes no configuration of it."""
    text = {"decomposition": {"values": ["least-squares"]}, "ratio": {"values": [0.5]}}
    plain = {"name": "s", "baseline": {"model": "lenet-300-100", "dataset": "digits"}, "axes": text}
    asked = partial(SweepRequest, name="s", space="s", search="grid")
    new = parse_space(plain, "s").settled()
    (today,) = parse_space(plain, "s").grid()
    (old,) = parse_space(resampled(asked(resolved=plain)), "s").grid()
    assert (old.options["damping"], today.options["damping"]) == (2e-3, "auto")
    later = create_model("Later", __base__=LeastSquares, damping=(float | str, 0.7))
    monkeypatch.setitem(DECOMPOSITIONS._parts, "least-squares", later)
    (goes_on,) = parse_space(resampled(asked(resolved=new)), "s").grid()
    (begins,) = parse_space(plain, "s").grid()
    assert begins.options["damping"] == 0.7
    assert goes_on.key == today.key


def test_what_is_written_once_more_reads_the_same(old: Path) -> None:
    before = read_sweep(old, "grid").info
    with open_store(old, "grid") as store:
        assert store.info == before
    assert read_sweep(old, "grid").info == before
    written = json.loads((old / "grid" / "sweep.json").read_text())
    assert written.items() >= json.loads((FIXTURES / "grid" / "sweep.json").read_text()).items()


@pytest.mark.slow
def test_an_old_sweep_is_resumed_with_more_samples(old: Path) -> None:
    before = lines(old, "grid")
    call(old.parent, "resume", "grid", "--samples", "20")
    after = lines(old, "grid")
    assert after[: len(before)] == before
    trials = [line for line in after if "kind" not in line]
    assert Counter(line["key"] for line in trials).most_common(1)[0][1] == 1
    assert len(trials) == 20
    assert {line.get("split", "test") for line in trials} == {"test"}
    # its original network is trained anew, and on other processors it is another one, whose models are refused
    assert {line["kind"] for line in after if "kind" in line} <= {"time"}
    sweep = read_sweep(old, "grid")
    assert len(child_keys(old.parent, sweep.info.state.run_id)) == 20
    call(old.parent, "resume", "grid")
    assert lines(old, "grid") == after


def edited(results: Path, name: str = "grid", **changes: object) -> None:
    path = results / name / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"key_version": 9}, "was written by a newer release .key version 9, this one knows 1.: upgrade"),
        ({"lagg": 3}, "sweep.json: unknown key 'lagg'; did you mean 'lag'.; it was damaged or is of another version"),
        ({"lag": -3}, "sweep.json: lag = -3: input should be greater than or equal to 0"),
        ({"resolved": {"name": "x"}}, "baseline: is missing"),
    ],
)
def test_a_sweep_of_another_version_or_edited_by_hand_is_refused_in_one_sentence(
    old: Path, changes: dict, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    before = (old / "grid" / "trials.jsonl").read_bytes()
    edited(old, **changes)
    code = main(["resume", "grid", "--results", str(old)])
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert error.count("\n") == 1
    assert re.search(sentence, error), error
    assert (old / "grid" / "trials.jsonl").read_bytes() == before


def test_a_sweep_of_a_newer_version_is_still_shown(old: Path, capsys: pytest.CaptureFixture) -> None:
    edited(old, key_version=9)
    assert main(["status", "grid", "--results", str(old)]) == 0
    assert "18/18 trials" in capsys.readouterr().out


def test_a_sweep_of_an_older_version_is_not_run_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_module, "KEY_VERSION", 2)
    with pytest.raises(UsageError, match=r"older release \(key version 1, now 2\), whose defaults mean something else"):
        require_key_version(parse_info((old / "grid" / "sweep.json").read_text()))


def test_records_of_parts_that_are_gone_are_shown_plotted_and_kept(old: Path, capsys: pytest.CaptureFixture) -> None:
    path = old / "grid" / "trials.jsonl"
    first, *rest = path.read_text().splitlines()
    gone = json.loads(first)
    gone["config"] |= {"decomposition": "folded", "criterion": "taylor", "options": {"sharp": 3}, "novel": True}
    gone |= {"key": "f" * 16, "metrics": {**gone["metrics"], "accuracy": 99.9}, "mood": "fine"}
    path.write_text("\n".join([json.dumps(gone), *rest, first]) + "\n")
    sweep = read_sweep(old, "grid")
    assert (len(sweep.records), sweep.torn_lines, sweep.foreign_lines) == (19, 0, 0)
    for verb in (["status", "grid"], ["logs", "grid", "--trial", "ffff"], ["pareto", "grid", "--format", "png,csv"]):
        assert main([*verb, "--results", str(old)]) == 0
    shown = capsys.readouterr().out
    assert "taylor" in shown
    assert "folded" in shown
    assert "folded" in (old / "grid" / "front.csv").read_text()
    space = parse_space(resampled(sweep.info.request, None), "grid")
    planner = make_planner(Plan(space, 0, sweep.records))
    assert planner.exhausted
    assert all(config.key != "f" * 16 for config in lacking_test(fronts_of(sweep.records), frozenset()))
    with open_store(old, "grid"):
        pass
    assert json.loads(path.read_text().splitlines()[0])["mood"] == "fine"
