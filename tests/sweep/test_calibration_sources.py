"""Calibration sources in a sweep: what they read lies on the driver's machine, and workers need none of it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call
from PIL import Image

from core.config import TrialConfig
from core.datasets import load_dataset
from core.errors import DataError, UnknownNameError, UsageError
from core.models import load_model
from core.trial import run_trial
from search_spaces import load_space, parse_space
from sweep.backend.shared import share
from sweep.backend.workbench import make_bench

CONFIG = TrialConfig(decomposition="least-squares", calibration="folder:photos", calibration_images=16)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty pictures in a folder of the current directory."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(folder / f"{i:02}.png")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="module")
def baseline() -> Any:
    digits = load_dataset("digits")
    net = load_model("lenet-300-100", num_classes=10, in_channels=1)

    class Made:
        model, key, dataset = net, "b", digits

    with torch.no_grad():
        net(digits.inputs("test", 1)[0])
    return Made()


def test_a_worker_draws_what_the_driver_would_and_sees_no_file(
    photos: Path, baseline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = make_bench(baseline, "test", sources=["folder:photos", "noise"]).with_original()
    directly = replace(bench, collected={}).calibration(CONFIG)
    assert isinstance(directly, torch.Tensor)
    shared = pickle.loads(pickle.dumps(share(bench)))  # as Ray sends it
    assert shared.nbytes >= 30 * 28 * 28
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    worker = shared.build("cpu")
    assert list(worker.collected) == ["folder:photos"]
    drawn = worker.calibration(CONFIG)
    assert isinstance(drawn, torch.Tensor)
    assert torch.equal(drawn, directly)
    assert drawn.shape == (16, 1, 28, 28)
    pixels = (drawn * bench.scale.std[0] + bench.scale.mean[0]) * 255
    assert torch.allclose(pixels, pixels.round(), atol=1e-3), "normalised as the dataset is"
    assert run_trial(CONFIG, worker).status == "finished"


def test_a_source_that_was_not_collected_fails_in_one_sentence(photos: Path, baseline: Any) -> None:
    bench = make_bench(baseline, "test").with_original()
    record = run_trial(CONFIG.model_copy(update={"calibration": "folder:nowhere"}), bench)
    assert record.status == "failed"
    assert record.reason.endswith("nowhere is not a folder: name one that holds images, or use another source")
    network = run_trial(CONFIG.model_copy(update={"calibration": "synthetic"}), bench)
    assert network.reason.endswith("and this network has none: use noise or folder:PATH")


def test_a_sweep_with_a_folder_that_is_not_there_does_not_begin(photos: Path, baseline: Any) -> None:
    with pytest.raises(DataError, match=r"calibration 'folder:other': .*other is not a folder"):
        make_bench(baseline, "test", sources=["folder:other"])


def space(**calibration: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "baseline": {"model": "lenet-300-100", "dataset": "digits"},
        "fixed": {"decomposition": "least-squares"},
        "axes": {"ratio": {"values": [0.3, 0.5]}, **calibration},
    }


def test_a_space_names_its_sources() -> None:
    names = ["train-subset", "folder:photos", "synthetic"]
    made = parse_space(space(calibration={"values": names}), "mine.toml")
    assert made.sources() == sorted(names)
    assert {config.calibration for config in made.grid()} == set(names)
    assert parse_space(space(), "mine.toml").sources() == []
    fixed = made.override({"calibration": "folder:photos"})
    assert fixed.sources() == ["folder:photos"]
    assert fixed.assignment(next(fixed.grid())) is not None


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("folders:photos", UnknownNameError, "axes.calibration.values: unknown calibration 'folders'; did you mean"),
        ("folder", UsageError, "mine.toml: axes.calibration.values: calibration 'folder': write folder:PATH"),
        ("noise:3", UsageError, "axes.calibration.values: calibration 'noise:3': noise takes nothing behind a colon"),
    ],
)
def test_what_a_space_says_wrongly_is_told(name: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        parse_space(space(calibration={"values": [name]}), "mine.toml")


def test_the_command_line_fixes_a_source() -> None:
    made = load_space("digits-quick").override({"decomposition": "least-squares", "calibration": "'folder:my photos'"})
    assert made.fixed["calibration"] == "folder:my photos"


@pytest.mark.slow
def test_a_sweep_over_sources(photos: Path) -> None:
    axis = "calibration={values = ['train-subset', 'noise', 'folder:photos']}"
    chosen = ["--set", "decomposition=least-squares", "--set", "criterion=l1", "--set", "baseline.epochs=2"]
    call(photos.parent, "run", "digits-quick", *chosen, "--set", axis, "--name", "mine", "--workers", "1")
    lines = map(json.loads, (photos.parent / "results" / "mine" / "trials.jsonl").read_text().splitlines())
    trials = [line for line in lines if "kind" not in line]
    assert len(trials) == 12
    assert {trial["status"] for trial in trials} == {"finished"}
    assert {trial["config"]["calibration"] for trial in trials} == {"train-subset", "noise", "folder:photos"}
