"""docs/tasks.md, followed to the letter: a segmentation net, and a network of two inputs scored by a function."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import call, environment

from core.export import load
from tests.pages import blocks, commands

PAGE = "docs/tasks.md"
FILES = {
    "python": ["my_eval.py", "my_scenes.py", "my_pair.py"],
    "py": ["train_scenes.py", "train_pair.py"],
    "toml": ["scenes.toml", "pair.toml"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files."""
    folder = tmp_path_factory.mktemp("tasks")
    for language, names in FILES.items():
        found = [block.text for block in blocks(PAGE) if block.language == language]
        for name, text in zip(names, found, strict=True):
            (folder / name).write_text(text)
    return folder


def shown(word: str) -> list[list[str]]:
    """The page's commands that name ``word``."""
    shell = [block.text for block in blocks(PAGE) if block.language == "bash"]
    return [words for text in shell for words in commands(text) if any(word in one for one in words)]


def follow(place: Path, name: str) -> tuple[str, str]:
    """Train a network of the page and give the commands that are shown for it; what the two printed."""
    subprocess.run([sys.executable, f"train_{name}.py"], cwd=place, env=environment(), check=True, timeout=600)
    run, export = shown(name)
    return call(place, *run[1:]), call(place, *export[1:])


@pytest.mark.slow
def test_a_segmentation_net_is_swept_by_miou(place: Path) -> None:
    ran, _ = follow(place, "scenes")
    assert "24 of 24 trials" in ran
    assert "mIoU %" in ran
    assert "test mIoU %" in ran
    (folder,) = (place / "results/scenes/export").iterdir()
    metrics = json.loads((folder / "config.json").read_text())["metrics"]
    assert metrics["miou_drop"] <= 5
    assert metrics["params_fraction"] < 0.8
    assert {"pixel_accuracy", "loss", "test_miou"} <= metrics.keys()
    assert "type: image-segmentation" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_a_network_of_two_inputs_is_swept_by_its_own_metric(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, _ = follow(place, "pair")
    assert "24 of 24 trials" in ran
    assert "take one:  sweep export pair --front" in ran
    (folder,) = (place / "results/pair/export").iterdir()
    found = json.loads((folder / "config.json").read_text())
    before, after = found["original_metrics"]["rmse"], found["metrics"]["rmse"]
    assert after == pytest.approx(before + found["metrics"]["rmse_drop"])
    assert after < 1.5 * before
    assert found["inputs"] == [[1, 16, 16], [8]]
    monkeypatch.syspath_prepend(place)
    pair = importlib.import_module(Path(FILES["python"][2]).stem)
    net = load(folder / "model.safetensors", factory=pair.Pair)
    assert pair.evaluate(net, pair.data().test, "cpu")["rmse"] == pytest.approx(found["metrics"]["test_rmse"], rel=1e-3)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(folder / "model.onnx"))
    (picture, vector), _ = pair.data().batches[0]
    (told,) = session.run(None, {"input_0": picture.numpy(), "input_1": vector.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(told), net(picture, vector)["value"], atol=1e-4)


@pytest.mark.slow
def test_a_function_of_ones_own_measures_a_classifier(place: Path) -> None:
    (words,) = shown("my_eval")
    told = call(place, *words[1:])
    assert "confidence (%)" in told
    assert "images " in told
