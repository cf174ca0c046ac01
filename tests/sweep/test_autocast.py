"""`[evaluation] autocast`: off by default, part of no trial's identity, and its effect is said wherever figures are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import call, started
from mlflow import MlflowClient
from sweep_records import record_of

from core.errors import UsageError
from search_spaces import load_space, parse_space
from sweep.reporting.report import facts
from sweep.search.warmstart import WarmStart
from sweep.storage.reader import StoredSweep, read_sweep
from sweep.tracking.summary import Front, description
from sweep.tracking.view import Names

HALF = {"evaluation.autocast": "bfloat16"}


def test_a_space_keeps_it_and_its_trials_are_the_same() -> None:
    half, full = load_space("digits-quick", HALF), load_space("digits-quick")
    assert half.settled()["evaluation"] == {"split": "validation", "autocast": "bfloat16"}
    assert full.settled()["evaluation"] == {"split": "validation"}, "as in sweeps of before"
    assert parse_space(half.settled(), "again").evaluation.autocast == "bfloat16"
    assert [config.key for config in half.grid()] == [config.key for config in full.grid()]
    assert half.baseline.key == full.baseline.key
    with pytest.raises(UsageError, match=r"evaluation\.autocast: 'int8' is not known; known: bfloat16, float16"):
        load_space("digits-quick", {"evaluation.autocast": "int8"})


def test_the_effect_is_said_beside_the_figures(make_info, tmp_path: Path) -> None:
    plain = make_info("plain")
    assert plain.precision == ""
    original = {**plain.state.original, "full_precision_accuracy": 90.25}
    resolved = {"evaluation": {"split": "validation", "autocast": "bfloat16"}}
    info = make_info("half", original=original, resolved=resolved)
    said = "autocast bfloat16 (without it the original reaches 90.25 %)"
    assert info.precision == said
    assert dict(facts(StoredSweep(info, [], 0, tmp_path / "half")))["evaluated on"] == said
    assert f"Evaluated with {said}." in description(info, Front(), Names(()), "1", "2", {})
    assert make_info("half", resolved=resolved).precision == "autocast bfloat16", "before it is known"


def test_results_of_another_precision_are_not_taken_over(make_info, tmp_path: Path) -> None:
    space = load_space("digits-quick", HALF)
    config = next(space.grid())
    for name, document, taken in (("half", space, 1), ("full", load_space("digits-quick"), 0)):
        info = make_info(name, resolved=document.settled())
        record = record_of(config).model_copy(update={"split": "validation"})
        warm = WarmStart(space, (StoredSweep(info, [record], 0, tmp_path / name),))
        assert len(warm.records_for("b0", "validation")) == taken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_a_sweep_under_autocast(tmp_path: Path) -> None:
    """And a sweep that goes on with another original network says so."""
    words = ("--set", "evaluation.autocast=bfloat16", "--set", "baseline.epochs=2", "--search", "random")
    sweep = json.loads(call(tmp_path, "run", "digits-quick", *words, "--samples", "3", "--name", "half", "--json"))
    original = sweep["original"]
    assert abs(original["accuracy"] - original["full_precision_accuracy"]) < 2
    assert sweep["metrics"]["trials_finished"] == 3
    folder = tmp_path / "results" / "half"
    assert "autocast bfloat16 (without it the original reaches" in (folder / "report.html").read_text()
    run = MlflowClient(f"sqlite:///{tmp_path}/results/mlflow.db").get_run(sweep["mlflow"]["run_id"])
    assert run.data.metrics["original_full_precision_accuracy"] == original["full_precision_accuracy"]
    assert sorted(folder.glob("models/*.safetensors")), "rebuilt under autocast, they reach the same"
    path = folder / "sweep.json"
    values = json.loads(path.read_text())
    values["original"]["accuracy"] -= 5
    path.write_text(json.dumps(values))
    process = started(tmp_path, "resume", "half", "--samples", "4")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"warning: the original network reaches {original['accuracy']:.2f} %, and" in err
    assert f"{original['accuracy'] - 5:.2f} % when the sweep began: its weights have changed" in " ".join(err.split())
    assert len(read_sweep(tmp_path / "results", "half").records) == 4
