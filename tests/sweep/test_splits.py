"""A search does not look at the test split; the front is evaluated there once, when the search is over."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import call, child_keys
from sweep_records import record_of

from core.config import TrialConfig
from core.datasets import load_dataset
from core.datasets.base import ImageDataset, Split
from core.errors import DataError
from core.pareto import pareto_front
from core.records import SplitRecord, TimeRecord
from core.trial import run_test, run_trial
from search_spaces import list_spaces, load_space
from sweep.backend.workbench import dataset_card, make_bench, remarks
from sweep.cli import main
from sweep.filing import fronts_of, lacking_test
from sweep.reporting.outcome import reasons_of
from sweep.storage.reader import read_sweep
from sweep.storage.writer import create_store
from tests.core.nets import images, make

PAPER = {"lenet-fashion-mnist", "vgg16-cifar10", "resnet56-cifar10", "wrn-40-4-cifar10"}
SMALL = ["digits-quick", "--set", "baseline.epochs=2", "--set", "criterion=l1", "--workers", "2"]


def test_only_the_papers_own_spaces_are_searched_on_the_test_split() -> None:
    assert {space.name for space in list_spaces() if space.evaluation.split == "test"} == PAPER
    assert load_space("digits-quick").override({"evaluation.split": "test"}).evaluation.split == "test"


def dataset(**changes: Any) -> ImageDataset:
    def part(count: int, seed: int) -> Split:
        pixels = torch.rand(count, *images(1).shape[1:], generator=torch.Generator().manual_seed(seed))
        return Split(pixels, torch.arange(count) % 4)

    scale = (0.5, 0.5, 0.5)
    made = ImageDataset("toy", part(40, 0), part(24, 1), part(32, 2), scale, scale, tuple("abcd"))
    return replace(made, **changes)


def baseline(data: ImageDataset) -> Any:
    return SimpleNamespace(model=make("plain")[0], key="b", dataset=data, doubts=())


def test_the_bench_has_the_split_that_is_searched_and_the_test_split() -> None:
    made = baseline(dataset())
    bench = make_bench(made, "validation").with_original()
    assert (bench.split, len(bench.labels), len(bench.test.labels)) == ("validation", 24, 32)
    assert {"accuracy", "test_accuracy", "test_loss"} <= bench.original.keys()
    assert dataset_card(made, "validation").images == 24
    assert dataset_card(made, "validation").digest != dataset_card(made, "test").digest == made.dataset.fingerprint
    alone = make_bench(made, "test").with_original()
    assert (alone.split, alone.test, len(alone.labels)) == ("test", None, 32)
    assert alone.original["accuracy"] == bench.original["test_accuracy"]


def test_a_test_is_what_the_trial_would_have_been_on_the_test_split() -> None:
    made, config = baseline(dataset()), TrialConfig(ratio=0.5)
    bench = make_bench(made, "validation").with_original()
    trial, tested = run_trial(config, bench), run_test(config, bench)
    assert (trial.split, trial.images, tested.images) == ("validation", 24, 32)
    directly = run_trial(config, make_bench(made, "test").with_original())
    assert tested.metrics == {name: directly.metrics[name] for name in ("accuracy", "loss")}
    joined = tested.joined(trial)
    assert joined.metrics["test_accuracy"] == directly.metrics["accuracy"]
    assert joined.metrics["accuracy"] == trial.metrics["accuracy"]


def test_a_test_that_fails_says_why() -> None:
    bench = make_bench(baseline(dataset()), "validation").with_original()
    record = run_test(TrialConfig(sites=("nowhere",)), bench)
    assert (record.status, record.metrics) == ("failed", {})
    assert record.reason.startswith("sites: 'nowhere' matches no producer")


def test_a_dataset_without_a_test_split_of_its_own_says_so() -> None:
    held = dataset().validation
    data = dataset(validation=held, test=held, note="toy is small")
    assert make_bench(baseline(data), "validation").test is None
    assert remarks(baseline(data), "validation") == [
        "toy is small",
        "toy has no test split of its own: the front gets no test accuracy",
    ]
    assert remarks(baseline(dataset()), "validation") == []


def test_a_split_without_images_is_refused() -> None:
    data = dataset()
    empty = Split(data.train.images[:0], data.train.labels[:0])
    with pytest.raises(DataError, match="dataset 'toy' has no validation images: evaluate on the other split"):
        make_bench(baseline(dataset(validation=empty)), "validation")


def test_digits_have_three_splits() -> None:
    digits = load_dataset("digits")
    assert digits.has_own_test
    assert digits.digest("validation") != digits.fingerprint == digits.digest("test")


def test_the_front_over_every_size_is_tested_once() -> None:
    records = [record_of(TrialConfig(ratio=r / 10), accuracy=90.0 - r) for r in range(1, 8)]
    shifted = records[3].metrics | {"macs_fraction": 0.01, "params_fraction": 0.99}
    records.append(record_of(TrialConfig(ratio=0.85), accuracy=10.0).model_copy(update={"metrics": shifted}))
    records.append(record_of(TrialConfig(ratio=0.05), reason="it failed"))
    keys = {config.key for config in lacking_test(fronts_of(records), frozenset())}
    assert keys == {record.key for record in records[:8]}
    done = frozenset({records[0].key})
    records[1] = SplitRecord(key=records[1].key, split="test", metrics={"accuracy": 80.0}).joined(records[1])
    left = {config.key for config in lacking_test(fronts_of(records), done)}
    assert left == keys - {records[0].key, records[1].key}


def test_a_test_is_stored_beside_its_trial(results, make_info, make_record) -> None:
    record, other = make_record(0.1), make_record(0.2)
    tested = SplitRecord(key=record.key, split="test", metrics={"accuracy": 77.0, "loss": 0.7}, images=10)
    failed = SplitRecord(key=other.key, split="test", status="failed", reason="no")
    with create_store(results, "a", make_info) as store:
        for line in (record, other, tested, failed, tested.model_copy(update={"metrics": {"accuracy": 1.0}})):
            store.append(line)
    sweep = read_sweep(results, "a")
    assert [r.metrics.get("test_accuracy") for r in sweep.records] == [77.0, None]
    assert sweep.records[0].metrics["accuracy"] == record.metrics["accuracy"]
    assert sweep.tested == {record.key: "", other.key: "no"}
    assert reasons_of(sweep) == {"on the test split: no": 1}
    assert (sweep.torn_lines, sweep.foreign_lines) == (0, 0)


def test_a_time_is_stored_beside_its_trial_and_the_last_one_counts(results, make_info, make_record) -> None:
    record, other = make_record(0.1), make_record(0.2)
    times = [TimeRecord(key=record.key, metrics={"idle_latency_ms": ms, "idle_latency_fraction": 0.5}) for ms in (2, 1)]
    with create_store(results, "a", make_info) as store:
        for line in (record, other, *times):
            store.append(line)
    sweep = read_sweep(results, "a")
    assert [r.metrics.get("idle_latency_ms") for r in sweep.records] == [1.0, None]
    assert sweep.records[0].metrics["latency_ms"] == record.metrics["latency_ms"]
    assert (sweep.torn_lines, sweep.foreign_lines) == (0, 0)


@pytest.mark.parametrize("split", ["valid", "train"])
def test_an_unknown_split_is_refused(split: str, capsys: pytest.CaptureFixture) -> None:
    words = ["compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--split", split]
    assert main(words) == 2
    assert f"--split: unknown split '{split}'" in capsys.readouterr().err
    assert main(["show", "digits-quick", "--set", f"evaluation.split={split}"]) == 2
    assert f"evaluation.split: '{split}' is not known; known: test, validation" in capsys.readouterr().err.replace(
        "did you mean 'validation'?", "known: test, validation"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_sweep_on_the_validation_split_ends_with_test_accuracies(folder: Path) -> None:
    report = json.loads(call(folder, "run", *SMALL, "--name", "a", "--json"))
    sweep = read_sweep(folder / "results", "a")
    front = {record.key for record in pareto_front(sweep.records)}
    tested = {record.key for record in sweep.records if "test_accuracy" in record.metrics}
    assert front <= tested == sweep.tested.keys()
    assert len(tested) < len(sweep.records)
    assert {record.split for record in sweep.records} == {"validation"}
    assert all("test_accuracy" in entry["metrics"] for entry in report["front"])
    assert {"accuracy", "test_accuracy"} <= report["original"].keys()
    assert "test accuracy %" in call(folder, "status", "a")
    assert "test_accuracy" in (folder / "results" / "a" / "front.csv").read_text().splitlines()[0]
    assert "test accuracy" in (folder / "results" / "a" / "pareto.html").read_text()
    assert len(child_keys(folder, report["mlflow"]["run_id"])) == len(sweep.records)
    with sqlite3.connect(folder / "results" / "mlflow.db") as database:
        children = "select run_uuid from tags where key = 'sweep.trial_key'"
        query = (
            f"select count(*), avg(value) from latest_metrics where key = 'test_accuracy' and run_uuid in ({children})"
        )
        count, mean = database.execute(query).fetchone()
    assert count == len(tested)
    figures = [r.metrics["test_accuracy"] for r in sweep.records if r.key in tested]
    assert mean == pytest.approx(sum(figures) / count, abs=0.005), "to two places there"


@pytest.mark.slow
def test_what_a_kill_kept_from_being_tested_is_tested_by_a_resume(folder: Path) -> None:
    path = folder / "results" / "a" / "trials.jsonl"
    lines = path.read_text().splitlines()
    tests = [line for line in lines if line.startswith('{"kind":"split"')]
    path.write_text("\n".join(line for line in lines if line not in tests[1:]) + "\n")
    call(folder, "resume", "a")
    again = path.read_text().splitlines()
    assert len(again) == len(lines)
    figures = ("key", "metrics", "images")
    kept = [{name: json.loads(line)[name] for name in figures} for line in tests]
    found = [json.loads(line) for line in again if line.startswith('{"kind":"split"')]
    assert sorted(kept, key=str) == sorted(({name: one[name] for name in figures} for one in found), key=str)


@pytest.mark.slow
def test_a_plateau_ends_with_test_accuracies_too_and_a_stop_does_not_wait_for_them(folder: Path) -> None:
    wide = [*SMALL, "--set", "ratio={ low = 0.05, high = 0.9, step = 0.005 }", "--plateau", "15"]
    call(folder, "run", *wide, "--name", "plateau")
    sweep = read_sweep(folder / "results", "plateau")
    assert sweep.info.status == "stopped"
    assert {record.key for record in pareto_front(sweep.records)} <= sweep.tested.keys()


@pytest.mark.slow
def test_compress_on_either_split(folder: Path) -> None:
    words = ["compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--json"]
    on_test, on_validation = (json.loads(call(folder, *words, "--split", s)) for s in ("test", "validation"))
    assert (on_test["split"], on_validation["split"]) == ("test", "validation")
    assert on_test["original"]["params"] == on_validation["original"]["params"]
    assert on_test["original"]["accuracy"] != on_validation["original"]["accuracy"]
    assert json.loads(call(folder, *words)).keys() == on_test.keys()
