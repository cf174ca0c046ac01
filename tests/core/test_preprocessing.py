"""How pixels become inputs: the configuration's own, torchvision's with its weights, or the dataset's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.baselines import prepare_baseline
from core.config import BaselineConfig
from core.datasets import ImageDataset, Split, load_dataset
from core.datasets.base import fitted
from core.errors import UsageError
from core.models import load_model
from core.preprocessing import described
from core.training import train
from search_spaces import parse_space
from sweep.export.again import command_of
from sweep.storage.info import SweepRequest, resampled

QUICK = {"model": "lenet-300-100", "dataset": "digits"}
PUBLISHED = {"model": "torchvision:efficientnet_b0@IMAGENET1K_V1", "dataset": "image-folder:photos"}


def config(**changes: Any) -> BaselineConfig:
    return BaselineConfig.parse({**QUICK, **changes})


def space(**baseline: Any) -> Any:
    tables = {"name": "s", "baseline": baseline, "axes": {"ratio": {"values": [0.5, 0.7]}}}
    return parse_space(tables, "s.toml")


class TestIdentity:
    """What was there before these keys is found again; another preprocessing is another network."""

    def test_another_preprocessing_is_another_network(self, tmp_path: Path) -> None:
        (tmp_path / "net.pt").write_bytes(b"weights")
        bases: tuple[dict[str, Any], ...] = ({}, {"checkpoint": tmp_path / "net.pt"})
        for base in bases:
            changes: list[dict[str, Any]] = [
                {},
                {"mean": 0},
                {"mean": 0, "std": 1},
                {"interpolation": "bicubic"},
                {"size": 32},
                {"resize": 40},
            ]
            keys = [config(**base, **change).key for change in changes]
            assert len(set(keys)) == len(changes)

    def test_a_number_is_a_list_of_one(self) -> None:
        assert config(mean=0, std=1).key == config(mean=[0.0], std=[1]).key

    def test_what_is_expected_makes_no_other_network(self) -> None:
        assert config(expected_accuracy=97, preprocessing="dataset").key == config().key


class TestScale:
    def test_the_configurations_own_comes_first(self) -> None:
        data = load_dataset("digits")
        assert config().scaled("", "", data) == data
        own = config(mean=0, std=[0.25])
        found = own.scaled(own.model, own.dataset, data)
        assert (found.mean, found.std) == ((0.0,), (0.25,))
        assert described(found) == "images 28x28, mean 0, std 0.25"
        images = data.test.images[:4]
        assert torch.equal(found.normalise(images), images / 0.25)

    def test_one_number_is_for_every_channel(self) -> None:
        part = Split(torch.zeros(4, 3, 8, 8), torch.zeros(4).long())
        data = ImageDataset("three", part, part, part, (0.1, 0.2, 0.3), (1.0,) * 3, ("a", "b"))
        assert config(mean=0.5).scaled("", "", data).mean == (0.5, 0.5, 0.5)
        with pytest.raises(UsageError, match="mean has 2 numbers, and the images of 'three' have 3 channels: give one"):
            config(mean=[0.5, 0.5]).scaled("", "", data)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"std": 0}, r"std.*greater than 0"),
            ({"mean": []}, r"mean.*at least 1"),
            ({"mean": float("nan")}, r"mean.*finite"),
            ({"mean": "dark"}, r"mean = 'dark': "),
            ({"interpolation": "cubic"}, r"interpolation = 'cubic': .*'nearest', 'bilinear' or 'bicubic'"),
            ({"preprocessing": "mine"}, r"preprocessing = 'mine'"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=f"^{message}"):
            config(**changes)


class TestSize:
    def test_small_images_are_padded_or_scaled(self) -> None:
        images = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
        assert float(fitted(images, 16).float().mean()) == 50
        for way in ("nearest", "bilinear", "bicubic"):
            assert torch.equal(fitted(images, 16, way), torch.full((2, 1, 16, 16), 200, dtype=torch.uint8))
            assert fitted(images, 4, way).shape == (2, 1, 4, 4)
        with pytest.raises(UsageError, match="name an interpolation to have them scaled"):
            fitted(images, 4)

    def test_the_digits_are_scaled_as_asked(self) -> None:
        usual = load_dataset("digits", size=16).test.images
        assert torch.equal(load_dataset("digits", size=16, interpolation="bilinear").test.images, usual)
        nearest = load_dataset("digits", size=16, interpolation="nearest").test.images
        assert torch.equal(nearest[..., ::2, ::2], load_dataset("digits", size=8).test.images)

    def test_only_photographs_are_cut(self) -> None:
        with pytest.raises(UsageError, match="resize = 40: only photographs"):
            load_dataset("digits", resize=40)


class TestPublished:
    def test_weights_bring_their_own_for_photographs(self) -> None:
        found = BaselineConfig.parse(PUBLISHED)
        arguments = found.loading(found.model, found.dataset)
        assert arguments == {"size": 224, "resize": 256, "interpolation": "bicubic"}
        other = BaselineConfig.parse({**PUBLISHED, "model": "torchvision:efficientnet_v2_l@IMAGENET1K_V1"})
        part = Split(torch.zeros(4, 3, 8, 8), torch.zeros(4).long())
        data = ImageDataset("photos", part, part, part, (0.1, 0.2, 0.3), (1.0,) * 3, ("a", "b"))
        assert other.scaled(other.model, other.dataset, data).mean == (0.5, 0.5, 0.5)
        assert other.scaled(other.model, "mine:data", data).mean == (0.1, 0.2, 0.3)

    def test_what_is_said_beats_them_key_by_key(self) -> None:
        found = BaselineConfig.parse({**PUBLISHED, "size": 112, "interpolation": "bilinear"})
        arguments = found.loading(found.model, found.dataset)
        assert arguments == {"size": 112, "resize": 128, "interpolation": "bilinear"}
        usual = BaselineConfig.parse({**PUBLISHED, "preprocessing": "dataset"})
        assert set(usual.loading(usual.model, usual.dataset).values()) == {None}

    def test_their_key_is_the_one_it_was(self) -> None:
        plain = BaselineConfig.parse(PUBLISHED)
        assert plain.key == BaselineConfig.parse({**PUBLISHED, "preprocessing": "weights"}).key

    def test_an_older_sweep_goes_on_as_it_began(self) -> None:
        tables = space(**PUBLISHED).document
        old = SweepRequest(name="s", space="s", resolved=tables, search="grid")
        assert parse_space(resampled(old), "s").baseline.preprocessing == "dataset"
        new = SweepRequest(name="s", space="s", resolved=space(**PUBLISHED).settled(), search="grid")
        assert parse_space(resampled(new), "s").baseline.preprocessing == "weights"
        assert "preprocessing" not in resampled(SweepRequest(name="s", space="s", resolved=space(**QUICK).document,
                                                             search="grid"))["baseline"]  # fmt: skip

    def test_photographs_are_seen_as_asked(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        for split in ("train", "val"):
            for name in ("ant", "bee"):
                folder = tmp_path / split / name
                folder.mkdir(parents=True)
                for i in range(5):
                    Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        usual = load_dataset(f"image-folder:{tmp_path}", size=28)
        again = load_dataset(f"image-folder:{tmp_path}", size=28, resize=32, interpolation="bilinear")
        assert torch.equal(usual.test.images, again.test.images)
        assert usual.framing == "the shorter side scaled to 32 (bilinear), the middle 28x28"
        whole = load_dataset(f"image-folder:{tmp_path}", size=28, resize=28, interpolation="bicubic")
        assert not torch.equal(usual.test.images, whole.test.images)
        assert usual.fingerprint != whole.fingerprint
        with pytest.raises(UsageError, match="resize = 20 is below size = 28"):
            load_dataset(f"image-folder:{tmp_path}", size=28, resize=20)


def test_the_command_of_a_trial_says_it() -> None:
    own = space(**QUICK, mean=[-0.5], std=0.25, size=32, expected_accuracy=90.0)
    command = command_of(next(own.grid()), own)
    assert "--mean=-0.5 --std 0.25 --size 32 --expected-accuracy 90.0" in command
    assert "--mean" not in command_of(next(space(**QUICK).grid()), space(**QUICK))


def test_training_here_sees_the_same_images(tmp_path: Path) -> None:
    data = load_dataset("digits")
    own = config(mean=0, std=1, epochs=1)
    found = prepare_baseline(own, tmp_path, dataset=data)
    by_hand = train(load_model("lenet-300-100"), own.scaled(own.model, own.dataset, data), own.recipe, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), by_hand.parameters(), strict=True))
    assert found.dataset.mean == (0.0,)
