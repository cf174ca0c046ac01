"""A training that was broken off goes on, and gives the weights of one that never was, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core import resumable
from core.baselines import prepare_baseline
from core.config import BaselineConfig
from core.datasets import ImageDataset, load_dataset
from core.models import Recipe
from core.resumable import Continuation
from core.training import train

RECIPE = Recipe(epochs=5, batch_size=64, lr=0.05, augment=True)


class BrokenOffError(Exception):
    pass


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SAVE_SECONDS", 0.0)


def network() -> nn.Module:
    """Everything that has a state of its own: batch norm's statistics and counter, dropout's draws."""
    torch.manual_seed(3)
    conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10))


def until(epoch: int) -> Any:
    def progress(done: int, total: int, text: str) -> None:
        if text.startswith(f"epoch {epoch}/"):
            raise BrokenOffError

    return progress


@pytest.mark.parametrize("at", [[2], [3], [2, 4, 5]])
def test_the_weights_are_those_of_a_training_in_one_piece(digits: ImageDataset, tmp_path: Path, at: list[int]) -> None:
    whole = train(network(), digits, RECIPE, seed=7).state_dict()
    path = tmp_path / "net.training"
    for epoch in at:
        with pytest.raises(BrokenOffError):
            train(network(), digits, RECIPE, seed=7, progress=until(epoch), continuation=Continuation(path, "it"))
        assert path.is_file() == (epoch > 1)
    told: list[str] = []
    kept = Continuation(path, "it")
    parts = train(
        network(), digits, RECIPE, seed=7, progress=lambda *a: told.append(a[2]), continuation=kept
    ).state_dict()
    assert told[0] == f"goes on after epoch {at[-1] - 1}/5"
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not path.exists()


@pytest.mark.parametrize("damage", ["cut", "noise", "other", "pickle", "inside"])
def test_a_file_that_cannot_be_used_is_a_training_from_the_start(
    digits: ImageDataset, tmp_path: Path, damage: str
) -> None:
    path, whole = tmp_path / "net.training", train(network(), digits, RECIPE, seed=7).state_dict()
    with pytest.raises(BrokenOffError):
        train(network(), digits, RECIPE, seed=7, progress=until(3), continuation=Continuation(path, "it"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "noise":
        path.write_bytes(b"nonsense")
    elif damage == "pickle":
        torch.save({"format": 1, "about": "it", "values": Path}, path)
    elif damage == "inside":  # the last part does not fit: what was brought back before it must not stay
        state = torch.load(path, weights_only=True)
        state["parts"]["optimiser"]["param_groups"].pop()
        torch.save(state, path)
    kept = Continuation(path, "something else" if damage == "other" else "it")
    again = train(network(), digits, RECIPE, seed=7, continuation=kept).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_full_disk_stops_no_training(digits: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Continuation(tmp_path / "file" / "net.training", "it")
    train(network(), digits, Recipe(epochs=2, batch_size=256), continuation=kept)


def test_an_original_network_goes_on_where_it_was_left(digits: ImageDataset, tmp_path: Path) -> None:
    config = BaselineConfig.parse({"model": "lenet-300-100", "dataset": "digits", "epochs": 4})
    whole = prepare_baseline(config, tmp_path / "one", dataset=digits)
    with pytest.raises(BrokenOffError):
        prepare_baseline(config, tmp_path / "two", until(3), digits)
    (left,) = (tmp_path / "two").iterdir()
    assert left.suffix == ".training"
    told: list[str] = []
    again = prepare_baseline(config, tmp_path / "two", lambda *a: told.append(a[2]), digits)
    assert any("goes on after epoch 2/4" in text for text in told)
    assert again.accuracy == whole.accuracy
    one, two = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [path.suffix for path in (tmp_path / "two").iterdir()] == [".safetensors"]
