"""From a finished sweep to a file in hand: the front's networks, `sweep export`, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from core.datasets import load_dataset
from core.export import load, read_metadata
from core.measure import evaluate
from sweep.commands.export import FORMS
from sweep.export.formats import WRITERS
from sweep.storage.reader import read_sweep

pytestmark = pytest.mark.slow

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
    call(place, "export", "small", "--max-drop", "50", "--out", "taken")
    before = (place / "taken/config.json").read_bytes()
    call(place, "export", "small", "--max-drop", "50", "--out", "taken", code=2)
    call(place, "export", "small", "--max-drop", "50", "--out", "taken", "--force")
    assert (place / "taken/config.json").read_bytes() == before
    (place / "other").mkdir()
    (place / "other/letter.txt").write_text("mine")
    call(place, "export", "small", "--max-drop", "50", "--out", "other", "--force", code=2)
    assert (place / "other/letter.txt").read_text() == "mine"


def test_the_whole_front_is_a_folder_each(place: Path) -> None:
    written = json.loads(call(place, "export", "small", "--front", "--out", "all", "--json"))
    assert sorted(path.name for path in (place / "all").iterdir()) == sorted(one["key"] for one in written)


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


def test_a_network_that_is_not_what_its_record_says_is_not_written(place: Path) -> None:
    trials = place / "results/small/trials.jsonl"
    text = trials.read_text()
    record = next(r for r in read_sweep(place / "results", "small").records if r.status == "finished")
    wanted = record.metrics["accuracy"]
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if line["key"] == record.key and "config" in line:
            line["metrics"]["accuracy"] = wanted - 20
    try:
        trials.write_text("".join(json.dumps(line) + "\n" for line in lines))
        call(place, "export", "small", "--trial", record.key, "--out", "wrong", code=1)
        assert not (place / "wrong").exists()
    finally:
        trials.write_text(text)


def test_an_original_that_is_gone_is_not_trained_again_unasked(place: Path) -> None:
    (path,) = (place / "results/.baselines").glob("*.safetensors")
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    try:
        call(place, "export", "small", "--max-drop", "50", "--out", "gone", code=1)
        assert not (place / "gone").exists()
    finally:
        hidden.rename(path)


def test_no_models_leaves_them_out_and_formats_are_known_by_name(place: Path) -> None:
    call(place, *RUN[:-1], "bare", "--no-models", "--samples", "2")
    assert not (place / "results/bare/models").exists()
    assert set(FORMS) == set(WRITERS)
    call(place, "compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--out", "a.onnx")
    assert (place / "a.onnx").read_bytes()[:1] == b"\x08"  # an ONNX file begins with its version
    call(
        place, "compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--out", "a.pth", code=2
    )
