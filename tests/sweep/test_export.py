"""From a finished sweep to a file in hand: the front's networks, `sweep export`, and what it refuses."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import COMMAND, call, environment
from safetensors import safe_open
from safetensors.torch import save_file

from core.datasets import load_dataset
from core.export import load, read_metadata
from core.measure import evaluate
from sweep.cli import main
from sweep.commands.export import FORMS
from sweep.export import choose
from sweep.export.formats import WRITERS
from sweep.storage.reader import read_sweep
from sweep.tracking.logged import tracking_at
from sweep.tracking.uri import default_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore:.*Any type hint:UserWarning",
    ),
]

RUN = ("run", "digits-quick", "--workers", "2", "--set", "ratio=[0.3,0.7,0.9]", "--name", "small")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    call(folder, *RUN)
    return folder


def test_the_networks_of_the_front_are_there_when_a_sweep_ends(place: Path) -> None:
    front = json.loads((place / "results/small/front.json").read_text())
    keys = {point["key"] for point in front["front"]}
    files = {path.stem for path in (place / "results/small/models").glob("*.safetensors")}
    assert files == keys
    records = {record.key: record for record in read_sweep(place / "results", "small").records}
    images, labels = load_dataset("digits").inputs("validation")
    for key in keys:
        path = place / f"results/small/models/{key}.safetensors"
        assert evaluate(load(path), images, labels, 250, "cpu").accuracy == pytest.approx(
            records[key].metrics["accuracy"]
        )
        assert read_metadata(path)["key"] == key
        assert f"`{key}`" in path.with_suffix(".md").read_text()


@pytest.fixture(scope="module")
def client(place: Path) -> Any:
    from mlflow import MlflowClient

    uri = default_uri(place / "results")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def logged(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("digits-quick").experiment_id
    return {model.tags["sweep.trial_key"]: model for model in client.search_logged_models([experiment])}


def test_mlflow_lists_the_networks_of_the_front(place: Path, client: Any) -> None:
    """With the figures of their trials, and as models that give the record's accuracy without this package."""
    import mlflow

    records = {record.key: record for record in read_sweep(place / "results", "small").records}
    found = logged(client)
    keys = {path.stem for path in (place / "results/small/models").glob("*.safetensors")}
    assert set(found) == keys
    images, labels = load_dataset("digits").inputs("validation")
    for key, model in found.items():
        accuracy = records[key].metrics["accuracy"]
        assert str(model.status) == "READY"
        assert model.tags["sweep.front"] == "true"
        assert "sweep.program" not in model.tags
        assert {m.key: m.value for m in model.metrics}["accuracy"] == round(accuracy, 2)
        assert {m.dataset_name for m in model.metrics} == {"digits"}
        assert model.params["decomposition"] == records[key].decomposition
        run = client.get_run(model.source_run_id)
        assert run.data.tags["sweep.trial_key"] == key
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
        program = mlflow.pyfunc.load_model(model.artifact_location)
        assert program.metadata.get_input_schema() is not None
        right = program.predict(images.numpy()).argmax(1) == labels.numpy()
        assert 100 * right.mean() == pytest.approx(accuracy)


def test_one_command_registers_a_network(place: Path, client: Any) -> None:
    import mlflow

    before = set(logged(client))
    record = choose.within(read_sweep(place / "results", "small"), 3.0)
    words = ["export", "small", "--max-drop", "3", "--out", "registered", "--force", "--register", "digits"]
    text = call(place, *words, "--alias", "champion")
    assert "registered as models:/digits/1, models:/digits@champion" in text
    assert set(logged(client)) == before | {record.key}
    again = json.loads(call(place, *words, "--json"))
    assert again[0]["version"] == "2"
    version = client.get_model_version_by_alias("digits", "champion")
    assert (str(version.version), version.run_id) == ("1", logged(client)[record.key].source_run_id)
    with tracking_at(default_uri(place / "results")):
        assert mlflow.pyfunc.load_model("models:/digits@champion") is not None


def test_sync_brings_the_networks_to_another_store(place: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'other.db'}"
    for _ in range(2):
        call(place, "sync", "small", "--tracking-uri", uri)
    found = logged(MlflowClient(tracking_uri=uri))
    assert set(found) == {path.stem for path in (place / "results/small/models").glob("*.safetensors")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-drop", "3", "--alias", "champion"], "give --register MODEL too"),
        (["--max-drop", "3", "--register", "m", "--alias", "v1"], "letters, digits"),
        (["--front", "--register", "m", "--alias", "best"], "--alias names one version"),
        (["--max-drop", "3", "--register", "m", "--format", "onnx"], "--register needs safetensors"),
        (["--max-drop", "3", "--tracking-uri", "http://x"], "--tracking-uri says where --register"),
    ],
)
def test_what_cannot_be_registered(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(place)
    assert main(["export", "small", *words]) == 2
    assert says in capsys.readouterr().err


def test_one_command_gives_an_onnx_file_that_classifies_as_the_record_says(place: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    words = (
        "export",
        "small",
        "--best",
        "accuracy",
        "--where",
        "params <= 0.4",
        "--format",
        "safetensors,pt2,onnx",
        "--json",
    )
    (one,) = json.loads(call(place, *words))
    assert one["problems"] == {}
    folder = place / "results/small/export" / one["key"]
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
    }
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    images, labels = load_dataset("digits").inputs("validation")
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    accuracy = 100 * float(np.mean(logits.argmax(1) == labels.numpy()))
    assert accuracy == pytest.approx(one["metrics"]["accuracy"], abs=100 / len(labels) + 1e-6)
    config = json.loads((folder / "config.json").read_text())
    assert config["key"] == one["key"]
    assert one["metrics"]["params_fraction"] <= 0.4
    card = (folder / "README.md").read_text()
    assert f"sweep export small --trial {one['key']}" in card
    assert "without any training" in card


def test_a_folder_that_is_there_is_kept_unless_it_is_forced(place: Path) -> None:
    call(place, "export", "small", "--max-drop", "50", "--out", "taken", "--format", "pt2")
    before = json.loads((place / "taken/config.json").read_bytes())
    call(place, "export", "small", "--max-drop", "50", "--out", "taken", code=2)
    (place / "taken/notes.txt").write_text("mine")
    call(place, "export", "small", "--max-drop", "50", "--out", "taken", "--force")
    after = json.loads((place / "taken/config.json").read_bytes())
    timed = {"latency_ms": 0, "batch_latency_ms": 0}
    assert {**after, **timed} == {**before, **timed}
    names = {path.name for path in (place / "taken").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "notes.txt"}


@pytest.mark.parametrize("config", [None, "{}", "[]", "no JSON"])
def test_what_is_somebody_elses_is_not_replaced(place: Path, tmp_path: Path, config: str | None) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    call(place, "export", "small", "--max-drop", "50", "--out", str(tmp_path), "--force", code=2)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_folder_that_one_is_in(place: Path) -> None:
    (place / "inside").mkdir()
    call(place / "inside", "export", "small", "--results", "../results", "--max-drop", "50", "--out", ".")
    names = {path.name for path in (place / "inside").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}


def test_the_whole_front_is_a_folder_each(place: Path) -> None:
    written = json.loads(call(place, "export", "small", "--front", "--out", "all", "--json"))
    assert len(written) >= 2
    assert sorted(path.name for path in (place / "all").iterdir()) == sorted(one["key"] for one in written)


def test_one_network_of_a_front_that_fails_costs_the_others_nothing(place: Path) -> None:
    front = [record.key for record in choose.front(read_sweep(place / "results", "small"))]
    with changed(place, lambda line: line["metrics"].update(params=1.0) if line["key"] == front[0] else None):
        written = json.loads(call(place, "export", "small", "--front", "--out", "rest", "--json", code=1))
    assert [one["key"] for one in written] == front[1:]
    assert not (place / "rest" / front[0]).exists()


def test_a_card_is_read_by_others(place: Path) -> None:
    yaml = pytest.importorskip("yaml")
    call(place, "export", "small", "--max-drop", "50", "--out", "card", "--format", "safetensors,onnx")
    config = json.loads((place / "card/config.json").read_text())
    _, head, text = (place / "card/README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(head)
    assert (found["license"], found["datasets"], found["metrics"]) == ("unknown", ["digits"], ["accuracy"])
    results = {
        result["dataset"]["split"]: result["metrics"][0]["value"] for result in found["model-index"][0]["results"]
    }
    assert results == {
        "validation": pytest.approx(config["metrics"]["accuracy"] / 100, abs=1e-6),
        "test": pytest.approx(config["metrics"]["test_accuracy"] / 100, abs=1e-6),
    }
    assert config["images"] == {
        "shape": [1, 28, 28],
        "mean": [0.5],
        "std": [0.5],
        "pixels": "0 to 1 before (x - mean) / std",
    }
    assert config["id2label"] == {str(digit): str(digit) for digit in range(10)}
    assert "latency of one image, this machine, one thread" in text
    assert 'onnxruntime.InferenceSession("model.onnx")' in text
    assert "model.pt2" not in text
    (again,) = re.findall("(?m)^sweep compress (.*)$", text)
    report = json.loads(call(place, "compress", *shlex.split(again), "--json"))
    assert (report["key"], report["accuracy"]) == (
        config["key"],
        pytest.approx(config["metrics"]["accuracy"], abs=0.01),
    )
    assert (place / "model.safetensors").is_file()


def test_compress_does_what_a_trial_did(place: Path) -> None:
    record = read_sweep(place / "results", "small").records[0]
    report = json.loads(call(place, "compress", "--trial", f"small/{record.key[:8]}", "--out", "t.pt2", "--json"))
    assert (report["key"], report["split"]) == (record.key, "validation")
    assert report["accuracy"] == pytest.approx(record.metrics["accuracy"], abs=0.01)
    assert torch.export.load(place / "t.pt2")


OWN = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(968, 10))
"""
SPACE = """
[baseline]
model = "my_nets:make"
dataset = "digits"
epochs = 1

[search]
algorithm = "grid"

[axes]
ratio = { values = [0.25, 0.5] }
"""


def test_a_users_own_network(place: Path) -> None:
    (place / "my_nets.py").write_text(OWN)
    (place / "own.toml").write_text(SPACE)
    call(place, "run", "own.toml", "--workers", "2", "--name", "own")
    words = ("export", "own", "--best", "accuracy", "--format", "safetensors,pt2,onnx", "--out", "own", "--json")
    (one,) = json.loads(call(place, *words))
    assert one["problems"] == {}
    assert 'load("model.safetensors", factory=make)' in (place / "own/README.md").read_text()
    network = ("--model", "my_nets:make", "--dataset", "digits", "--ratio", "0.5")
    call(place, "compress", *network, "--out", "own.safetensors")
    about = read_metadata(place / "own.safetensors")
    assert about["configuration"]["ratio"] == 0.5
    assert {"key", "split", "metrics"} <= about.keys()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("--front", "--max-drop", "1"), 2),
        (("--best", "acuracy"), 2),
        (("--where", "parms <= 1"), 2),
        (("--where", "params <= 0.0001"), 2),
        (("--max-drop", "-1"), 2),
        (("--front", "--by", "macs"), 2),
        (("--front", "--format", "onx"), 2),
        (("--trial", "123456"), 2),
    ],
)
def test_what_cannot_be_meant_is_refused(place: Path, words: tuple[str, ...], code: int) -> None:
    call(place, "export", "small", *words, code=code)


@contextlib.contextmanager
def changed(place: Path, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """The records otherwise, for a while."""
    trials = place / "results/small/trials.jsonl"
    text = trials.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if "config" in line:
            change(line)
    try:
        trials.write_text("".join(json.dumps(line) + "\n" for line in lines))
        yield
    finally:
        trials.write_text(text)


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (
            {"metrics": {"accuracy": 12.0}},
            1,
            r"made once more gives [\d.]+ %, and its record says 12.00 %: .* nothing is",
        ),
        ({"metrics": {"params": 7.0}}, 1, r"gives [\d.]+ %, [\d,]+ params, and its record says [\d.]+ %, 7 params"),
        ({"config": {"criterion": "gone"}}, 2, r"trial \w+: unknown criterion 'gone'; known: "),
        ({"config": {"seed": 5}}, 2, "is of a release whose configurations mean something else"),
        ({"status": "failed", "reason": "it broke"}, 2, r"failed \(it broke\), so it has no network to export"),
        ({"status": "stopped"}, 2, "was stopped by the race, so it has no network to export"),
        ({"split": "test"}, 2, "was evaluated on the test split, the sweep is on another"),
    ],
)
def test_a_network_that_is_not_what_its_record_says_is_not_written(
    place: Path, change: dict[str, Any], code: int, sentence: str
) -> None:
    record = next(r for r in read_sweep(place / "results", "small").records if r.status == "finished")

    def other(line: dict[str, Any]) -> None:
        if line["key"] == record.key:
            line |= {name: {**line[name], **new} if isinstance(new, dict) else new for name, new in change.items()}

    with changed(place, other):
        refused(place, code, sentence, "--trial", record.key, "--out", "wrong")
    assert not (place / "wrong").exists()


def refused(place: Path, code: int, sentence: str, *words: str) -> None:
    """`sweep export small` ends with one sentence."""
    done = subprocess.run(
        [*COMMAND, "export", "small", *words], cwd=place, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert re.search(sentence, done.stderr.splitlines()[-1]), done.stderr
    assert done.stdout == ""


def test_an_original_that_is_gone_damaged_or_another_one_is_not_trained_again_unasked(place: Path) -> None:
    (path,) = (place / "results/.baselines").glob("lenet*.safetensors")
    content = path.read_bytes()
    words = ("--max-drop", "50", "--out", "gone")
    try:
        for damaged in (None, content[: len(content) // 2]):
            path.unlink(missing_ok=True)
            if damaged is not None:
                path.write_bytes(damaged)
            refused(place, 1, "the original network of small cannot be had: .* gone, damaged or of other data", *words)
        with safe_open(_written(path, content), "pt") as file:
            about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file({name: -value for name, value in tensors.items()}, path, about)
        refused(place, 1, r"the original network of small reaches [\d.]+ %, and reached 9\d", *words)
    finally:
        path.write_bytes(content)
    assert not (place / "gone").exists()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_format_that_cannot_be_had_costs_the_others_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else find(name))
    monkeypatch.chdir(place)
    assert main(["export", "small", "--max-drop", "50", "--format", "onnx,pt2,safetensors", "--out", "two"]) == 1
    names = {path.name for path in (place / "two").iterdir()}
    assert names == {"README.md", "config.json", "model.pt2", "model.safetensors"}


def test_a_sweep_of_a_release_that_knew_the_test_split_only(place: Path) -> None:
    """Its resolved space says nothing of the split."""
    call(place, *RUN[:-1], "tested", "--samples", "4", "--set", "evaluation.split=test")
    path = place / "results/tested/sweep.json"
    info = json.loads(path.read_text())
    assert info["resolved"].pop("evaluation") == {"split": "test"}
    assert info.pop("models") is True
    path.write_text(json.dumps(info))
    call(place, "export", "tested", "--best", "accuracy", "--out", "old")
    assert json.loads((place / "old/config.json").read_text())["split"] == "test"


def test_a_sweep_that_a_limit_ended_has_its_networks_and_resuming_makes_those_that_are_missing(place: Path) -> None:
    done = json.loads(call(place, *RUN[:-1], "short", "--plateau", "3", "--json"))
    assert done["status"] == "stopped"
    keys = {point["key"] for point in done["front"]}
    folder = place / "results/short/models"
    assert {path.stem for path in folder.glob("*.safetensors")} == keys
    assert done["unwritten"] == {}
    (folder / f"{min(keys)}.safetensors").unlink()
    done = json.loads(call(place, "resume", "short", "--plateau", "1000", "--no-models", "--json"))
    assert done["status"] == "finished"
    assert not (folder / f"{min(keys)}.safetensors").exists()
    assert read_sweep(place / "results", "short").info.request.models is False
    done = json.loads(call(place, "resume", "short", "--models", "--json"))
    assert {Path(path).stem for path in done["models"]} == {point["key"] for point in done["front"]}


def test_no_models_leaves_them_out_and_formats_are_known_by_name(place: Path) -> None:
    call(place, *RUN[:-1], "bare", "--no-models", "--samples", "2")
    assert not (place / "results/bare/models").exists()
    assert set(FORMS) == set(WRITERS)
    call(place, "compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--out", "a.onnx")
    assert (place / "a.onnx").read_bytes()[:1] == b"\x08"  # an ONNX file begins with its version
    call(
        place, "compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--out", "a.pth", code=2
    )
