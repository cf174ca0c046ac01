"""A network from elsewhere that is not evaluated as its author meant is doubted by name, once, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from core import baselines
from core.baselines import Baseline, prepare_baseline
from core.config import BaselineConfig
from core.datasets import ImageDataset, Split, load_dataset
from core.doubts import PROBED, better_way, usual_ways
from core.errors import ModelError
from core.models import load_model
from core.recipes import Recipe
from core.training import train


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def checkpoint(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that was trained on pixels in [0, 1], while the dataset gives them in [-1, 1]."""
    elsewhere = replace(digits, mean=(0.0,), std=(1.0,))
    model = train(load_model("lenet-300-100"), elsewhere, Recipe(epochs=12, batch_size=64), seed=0)
    path = tmp_path_factory.mktemp("elsewhere") / "net.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def prepare(digits: ImageDataset, checkpoint: Path, tmp_path: Path) -> Any:
    def call(data: ImageDataset = digits, **changes: Any) -> Baseline:
        given = {"model": "lenet-300-100", "dataset": "digits", "checkpoint": checkpoint, **changes}
        return prepare_baseline(BaselineConfig.parse(given), tmp_path / "cache", dataset=data)

    return call


def test_a_better_preprocessing_is_named(prepare: Any) -> None:
    found = prepare()
    assert found.accuracy < 92
    [doubt] = found.doubts
    assert "% as given (mean 0.5, std 0.5), 9" in doubt
    assert f"% with images in [0, 1], on {PROBED} test images; did you mean mean = 0, std = 1?" in doubt


class Brightness(torch.nn.Module):
    """Tells ten kinds of brightness apart, of pixels normalised by 0.5 and 0.25."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kinds = (torch.arange(10) / 10 + 0.05 - 0.5) / 0.25
        return -(x.mean((1, 2, 3))[:, None] - kinds).square()


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_bytes_that_somebody_took_for_fractions_are_named(scale: float) -> None:
    labels = torch.arange(200) % 10
    part = Split(scale * (labels / 10 + 0.05)[:, None, None, None].expand(200, 1, 4, 4), labels)
    data = ImageDataset("grey", part, part, part, (0.5,), (0.25,), tuple("0123456789"))
    found = better_way(Brightness(), data, data, "cpu")
    if scale == 1:
        assert found == ""
    else:
        assert (
            "100.0 % with images divided by 255, on 200 test images; did you mean mean = 127.5, std = 63.75?" in found
        )


def test_the_right_one_is_not_doubted(prepare: Any) -> None:
    found = prepare(mean=0, std=1)
    assert found.accuracy > 95
    assert found.doubts == ()
    assert prepare().accuracy < 92, "the cache tells them apart"


def test_it_is_looked_at_once(prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare()
    monkeypatch.setattr(baselines, "doubts_about", lambda *_: pytest.fail("it was looked at again"))
    again = prepare()
    assert (again.origin, again.doubts) == ("cache", first.doubts)


def test_a_cache_of_an_older_release_is_looked_at(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    first = prepare()
    [path] = (tmp_path / "cache").iterdir()
    with safe_open(path, "pt") as file:
        metadata = {name: text for name, text in file.metadata().items() if name not in ("doubts", "scale")}
    save_file(load_file(path), path, metadata)
    found = prepare()
    assert (found.origin, found.doubts) == ("cache", first.doubts)


def test_what_was_trained_here_is_not_probed(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "doubts_about", lambda *_: pytest.fail("it was probed"))
    for _ in range(2):
        assert prepare(checkpoint=None, epochs=1).doubts == ()


def test_an_accuracy_that_is_missed_stops_with_what_was_applied(prepare: Any) -> None:
    sentence = (
        r"^lenet-300-100 reaches \d+.\d\d % on the test split of digits \(540 images\) with images 28x28, mean 0.5, "
        r"std 0.5, and expected_accuracy is 97: .*did you mean mean = 0, std = 1\?$"
    )
    for _ in range(2):
        with pytest.raises(ModelError, match=sentence):
            prepare(expected_accuracy=97)
    with pytest.raises(ModelError, match="is 100: bring mean, std, size and interpolation in line with its training"):
        prepare(expected_accuracy=100, mean=0, std=1.05)


def test_a_training_that_disappoints_is_kept(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="expected_accuracy is 100"):
        prepare(checkpoint=None, epochs=1, expected_accuracy=100)
    monkeypatch.setattr(baselines, "train", lambda *_, **__: pytest.fail("it was trained again"))
    assert prepare(checkpoint=None, epochs=1).origin == "cache"


def test_a_point_is_forgiven_and_nothing_probed(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "doubts_about", lambda *_: pytest.fail("it was probed"))
    accuracy = prepare(expected_accuracy=2).accuracy
    assert prepare(expected_accuracy=accuracy + 0.99).doubts == ()
    with pytest.raises(ModelError):
        prepare(expected_accuracy=accuracy + 1.01)


def test_chance_is_doubted_where_no_preprocessing_helps(prepare: Any, digits: ImageDataset) -> None:
    turned = replace(digits.test, labels=(digits.test.labels + 5) % 10)
    [doubt] = prepare(data=replace(digits, test=turned), mean=0, std=1).doubts
    assert "% on 540 test images is little better than chance (10 %): are the checkpoint, the preprocessing" in doubt


def test_half_right_of_two_classes_is_chance_and_nine_tenths_are_not(digits: ImageDataset) -> None:
    from core.doubts import doubts_about

    model = load_model("lenet-300-100")
    half = replace(digits.test, labels=digits.test.labels % 2)
    two = replace(digits, train=half, validation=half, test=half, classes=("a", "b"))
    assert doubts_about(model, 90.0, two, two, "cpu") == []
    assert doubts_about(model, 60.0, two, two, "cpu") != []


def test_usual_ways_differ_from_the_one_that_is_taken(digits: ImageDataset) -> None:
    assert [way.words for way in usual_ways(digits, digits)] == ["images in [0, 1]", "images in [0, 255]"]
    own = replace(digits, mean=(0.2,), std=(0.3,))
    words = [way.words for way in usual_ways(digits, own)]
    assert words == ["images in [0, 1]", "images in [0, 255]", "the normalisation of digits"]
