"""A kit that every source of calibration images passes: as many as asked, like the data, and drawn by one generator."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from core.calibration import CALIBRATIONS, Scale, calibration_images, synthetic
from core.errors import UnknownNameError, UsageError

SOURCES = ("folder", "noise", "synthetic", "train-subset")
SHAPES = [(1, 28, 28), (3, 8, 8), (3, 5, 9)]
SCALES = {1: Scale((0.29,), (0.35,)), 3: Scale((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "STEPS", 20)


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of smooth colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(40):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((40, 30)).save(folder / f"{i:02}.png")
    return folder


def pool(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(9))


def network(channels: int) -> nn.Module:
    """With batch norms that remember their statistics on smooth images."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        net.train()(nn.functional.avg_pool2d(torch.randn(64, channels, 12, 12), 3, 1) * 2 + 0.3)
    return net.eval()


def drawn(name: str, images: Tensor, count: int, photos: Path, seed: int = 0) -> Tensor:
    channels = images.shape[1]
    source = f"folder:{photos}" if name == "folder" else name
    return calibration_images(
        source, images=images, count=count, seed=seed, model=network(channels), scale=SCALES[channels]
    )


def test_the_table_is_complete() -> None:
    assert tuple(CALIBRATIONS.names()) == SOURCES


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 7, 32])
def test_so_many_as_asked_in_the_datas_form(name: str, shape: tuple[int, ...], count: int, photos: Path) -> None:
    found = drawn(name, pool(32, shape), count, photos)
    assert found.shape == (count, *shape)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert not found.requires_grad


@pytest.mark.parametrize("name", SOURCES)
def test_never_more_than_asked(name: str, photos: Path) -> None:
    assert len(drawn(name, pool(5, (1, 8, 8)), 12, photos)) <= 12


@pytest.mark.parametrize("name", SOURCES)
def test_a_seed_gives_the_same_images_and_another_one_others(name: str, photos: Path) -> None:
    images = pool(40, (1, 8, 8))
    assert torch.equal(drawn(name, images, 8, photos, seed=3), drawn(name, images, 8, photos, seed=3))
    assert not torch.equal(drawn(name, images, 8, photos, seed=3), drawn(name, images, 8, photos, seed=4))


@pytest.mark.parametrize("name", SOURCES)
def test_neither_the_pool_nor_the_global_random_state_changes(name: str, photos: Path) -> None:
    images = pool(20, (1, 8, 8))
    before, state = images.clone(), torch.get_rng_state()
    made = drawn(name, images, 6, photos)
    made.add_(1.0)
    assert torch.equal(images, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_is(name: str, training: bool, photos: Path) -> None:
    net = network(1).train(training)
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    source = f"folder:{photos}" if name == "folder" else name
    calibration_images(source, images=pool(20, (1, 8, 8)), count=6, model=net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("name", SOURCES)
def test_the_spread_is_about_that_of_the_data(name: str, photos: Path) -> None:
    """Normalised images have a variance of about one; a source far from it would tell a network nothing."""
    assert 0.3 < float(drawn(name, pool(200, (3, 16, 16)), 64, photos).std()) < 3


def test_training_images_are_drawn_without_repetition(photos: Path) -> None:
    images = pool(30, (1, 4, 4))
    found = drawn("train-subset", images, 30, photos)
    assert len(torch.unique(found.flatten(1), dim=0)) == 30


def test_noise_and_training_images_are_those_of_earlier_releases() -> None:
    """Records on disk say ``noise`` and ``train-subset`` and a seed; they mean the same images for ever."""
    images, generator = pool(30, (1, 4, 4)), torch.Generator().manual_seed(5)
    chosen = torch.randperm(30, generator=generator)[:7]
    assert torch.equal(calibration_images("train-subset", images=images, count=7, seed=5), images[chosen])
    white = torch.randn(7, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    smooth = nn.functional.avg_pool2d(white, 3, stride=1, padding=1, count_include_pad=False)
    assert torch.equal(calibration_images("noise", shape=(1, 4, 4), count=7, seed=5), smooth / smooth.std())


@pytest.mark.parametrize(
    ("source", "given", "sentence"),
    [
        ("noise", {}, r"say the shape of an image: shape=\(C, H, W\)"),
        ("noise", {"shape": (28, 28)}, r"shape = \(28, 28\): give \(C, H, W\), three whole numbers from 1"),
        ("noise", {"shape": (1, 0, 4)}, "three whole numbers from 1"),
        ("noise", {"shape": (1, 4, 4), "count": 0}, "count = 0: ask for at least one image, better 256"),
        ("noise", {"shape": (1, 4, 4), "scale": SCALES[3]}, "scale has 3 means and 3 stds for 1 channels"),
        ("noise:3", {"shape": (1, 4, 4)}, "calibration 'noise:3': noise takes nothing behind a colon; write noise"),
        ("folder", {"shape": (1, 4, 4)}, "calibration 'folder': write folder:PATH"),
        ("folder: ", {"shape": (1, 4, 4)}, "calibration 'folder: ': write folder:PATH"),
        ("train-subset", {"shape": (1, 4, 4)}, "draws from training images, and there are none: pass images="),
        ("synthetic", {"shape": (1, 4, 4)}, "makes images from the network: pass model="),
    ],
)
def test_what_is_missing_is_said(source: str, given: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        calibration_images(source, **given)


@pytest.mark.parametrize("source", ["nois", "folders:photos", ""])
def test_an_unknown_source_is_answered_with_the_known_ones(source: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown calibration '\w*'; (did you mean|known:)"):
        calibration_images(source, shape=(1, 4, 4))
