"""``image-folder:PATH``: real files, real decoding, and one sentence for everything that can be wrong with a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.datasets import image_folder, load_dataset
from core.errors import DataError, UnknownNameError, UsageError
from core.models import load_model
from sweep.cli import main

CLASSES = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}
Make = Callable[..., Path]


def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 32), mode: str = "RGB") -> None:
    """A picture of one colour whose left and right quarter are black: a centre crop sees only the colour."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, width // 4 : width - width // 4] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a folder ``photos`` with so many images of each class in each split."""

    def build(ending: str = "png", **counts: int) -> Path:
        for split, count in counts.items():
            for name, colour in CLASSES.items():
                for i in range(count):
                    write(tmp_path / "photos" / split / name / f"{i:03}.{ending}", colour)
        return tmp_path / "photos"

    return build


class TestLoading:
    def test_classes_splits_and_pixels(self, make: Make) -> None:
        dataset = load_dataset(f"image-folder:{make(train=10, val=4)}", size=16)
        assert dataset.name == "image-folder:photos"
        assert dataset.classes == tuple(CLASSES)
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [27, 3, 12]
        assert dataset.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert dataset.test.images.dtype == torch.uint8
        assert dataset.shape == (3, 16, 16)
        for label, colour in enumerate(CLASSES.values()):
            middle = dataset.test.images[dataset.test.labels == label][:, :, 4:-4, 5:-5]
            assert torch.equal(middle, torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand_as(middle))
        assert dataset.mirror

    def test_photographs_without_class_folders_have_no_labels(self, tmp_path: Path) -> None:
        for split, count in {"train": 10, "val": 4}.items():
            for i in range(count):
                write(tmp_path / split / f"{i}.png", (200, 30, 30))
        dataset = load_dataset(f"image-folder:{tmp_path}?train=5", size=16)
        assert not dataset.labelled
        assert len(dataset.train) + len(dataset.validation) == 5
        assert dataset.test.images.shape == (4, 3, 16, 16)
        for path in (tmp_path / "val").iterdir():
            path.unlink()
        with pytest.raises(DataError, match=r"val holds no image, and 'train' holds images without class folders"):
            load_dataset(f"image-folder:{tmp_path}", size=16)

    def test_normalised_with_the_constants_of_imagenet(self, make: Make) -> None:
        images, _ = load_dataset(f"image-folder:{make(train=1, val=1)}", size=8).inputs("test")
        expected = [(200 / 255 - 0.485) / 0.229, (30 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]
        assert images[0, :, 4, 4].tolist() == pytest.approx(expected, abs=1e-5)

    def test_resize_and_crop_are_those_of_torchvisions_weights(self, make: Make, tmp_path: Path) -> None:
        from torchvision.models import ResNet18_Weights

        make(train=1, val=1)
        noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos/val/ant/000.png")
        images, _ = load_dataset(f"image-folder:{tmp_path / 'photos'}").inputs("test")
        expected = ResNet18_Weights.IMAGENET1K_V1.transforms()(Image.fromarray(noise))
        assert torch.allclose(images[0], expected, atol=1e-5)

    @pytest.mark.parametrize(
        "kind", ["jpg RGB", "JPEG L", "png RGBA", "png P", "bmp RGB", "gif P", "webp RGB", "jpg CMYK"]
    )
    def test_any_format_becomes_rgb(self, make: Make, kind: str) -> None:
        root, (ending, mode) = make(train=1, val=1), kind.split()
        write(root / "val" / "ant" / f"000.{ending}", (120, 120, 120), mode=mode)
        if ending != "png":
            (root / "val" / "ant" / "000.png").unlink()
        dataset = load_dataset(f"image-folder:{root}", size=8)
        assert dataset.test.images[0, :, 4, 4].tolist() == pytest.approx([120, 120, 120], abs=4)

    def test_test_split_is_preferred_and_val_validates(self, make: Make) -> None:
        dataset = load_dataset(f"image-folder:{make(train=5, val=2, test=3)}", size=8)
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [15, 6, 9]

    def test_images_below_nested_folders_count_and_other_files_do_not(self, make: Make) -> None:
        root = make(train=1, test=1)
        write(root / "train" / "ant" / "images" / "deep.png", (1, 2, 3))
        (root / "train" / "ant" / "boxes.txt").write_text("0 0 1 1")
        (root / "train" / ".cache").mkdir()
        dataset = load_dataset(f"image-folder:{root}", size=8)
        assert len(dataset.train) + len(dataset.validation) == 4

    def test_so_many_images_per_class_evenly_spread(self, make: Make) -> None:
        root = make(train=10, val=10)
        for i in range(10):
            write(root / "val" / "ant" / f"{i:03}.png", (20 * i, 0, 0))
        dataset = load_dataset(f"image-folder:{root}?train=4&val=5", size=8)
        assert torch.bincount(torch.cat([dataset.train.labels, dataset.validation.labels])).tolist() == [4, 4, 4]
        assert dataset.test.images[:5, 0, 4, 4].tolist() == [0, 40, 80, 120, 160]

    def test_tells_how_far_it_is(self, make: Make) -> None:
        heard: list[str] = []
        load_dataset(f"image-folder:{make(train=2, val=1)}", size=8, progress=heard.append)
        assert [line.rpartition("/")[2] for line in heard] == ["train: 6 of 6 images", "val: 3 of 3 images"]

    def test_relative_to_the_current_directory(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(make(train=1, val=1).parent)
        assert load_dataset("image-folder:photos", size=8).name == "image-folder:photos"
        monkeypatch.chdir("photos")
        assert load_dataset("image-folder:.", size=8).name == "image-folder:photos"


class TestRefusals:
    @pytest.mark.parametrize("name", ["image-folder", "image-folder:", "image-folder:?train=3"])
    def test_no_path(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"write image-folder:PATH; the layout is PATH/train/CLASS"):
            load_dataset(name)

    @pytest.mark.parametrize(
        ("query", "error", "message"),
        [
            ("tain=3", UnknownNameError, "unknown option 'tain'; did you mean 'train'"),
            ("train=0", UsageError, "train = '0' must be a whole number from 1"),
            ("memory=lots", UsageError, "memory = 'lots' must be a whole number from 1"),
        ],
    )
    def test_options(self, make: Make, query: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            load_dataset(f"image-folder:{make(train=1, val=1)}?{query}")

    def test_missing_folders(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere is not a folder; the layout is"):
            load_dataset(f"image-folder:{tmp_path / 'nowhere'}")
        with pytest.raises(DataError, match=r"photos has neither a folder 'val' nor 'test'; the layout is"):
            load_dataset(f"image-folder:{make(train=1)}")
        with pytest.raises(DataError, match=r"val has no folder 'train'; the layout is"):
            load_dataset(f"image-folder:{make(val=1) / 'val'}")

    def test_a_single_class(self, tmp_path: Path) -> None:
        write(tmp_path / "train" / "ant" / "0.png", (1, 2, 3))
        with pytest.raises(DataError, match="train holds 1 class folders, at least two are needed"):
            load_dataset(f"image-folder:{tmp_path}")

    def test_classes_that_differ_between_splits(self, make: Make) -> None:
        root = make(train=1, val=1)
        (root / "val" / "dog").mkdir()
        with pytest.raises(DataError, match=r"val/dog is a class that 'train' does not have"):
            load_dataset(f"image-folder:{root}")
        (root / "val" / "dog").rename(root / "train" / "dog")
        write(root / "train" / "dog" / "0.png", (1, 2, 3))
        with pytest.raises(DataError, match=r"val has no folder 'dog', which 'train' has"):
            load_dataset(f"image-folder:{root}")

    def test_an_empty_class_folder(self, make: Make) -> None:
        root = make(train=1, val=1)
        (root / "train" / "bee" / "000.png").unlink()
        (root / "train" / "bee" / "readme.txt").write_text("moved")
        with pytest.raises(DataError, match=r"train/bee holds no image \(.*\.jpg.*\); fill or remove the folder"):
            load_dataset(f"image-folder:{root}")

    @pytest.mark.parametrize("damage", ["text", "cut", "empty"])
    @pytest.mark.parametrize("ending", ["jpg", "png"])
    def test_a_damaged_image_is_named(self, make: Make, ending: str, damage: str) -> None:
        path = make(ending, train=2, val=2) / "val" / "bee" / f"001.{ending}"
        content = {"text": b"<html>404</html>", "cut": path.read_bytes()[:-40], "empty": b""}[damage]
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=rf"val/bee/001.{ending} cannot be read as an image \(.+\): replace or remove"
        ):
            load_dataset(f"image-folder:{path.parents[2]}", size=8)

    @pytest.mark.parametrize("splits", [{"train": 20, "val": 5}, {"train": 20, "val": 5, "test": 4}])
    def test_many_are_decoded_once_into_a_file(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: dict[str, int]
    ) -> None:
        name = f"image-folder:{make(**splits)}?memory=1"
        small = load_dataset(name, size=16, cache_dir=tmp_path / "data")
        assert not (tmp_path / "data").exists()
        monkeypatch.setattr(image_folder, "IN_MEMORY", 0)
        large = load_dataset(name, size=16, cache_dir=tmp_path / "data")
        monkeypatch.setattr(image_folder, "_decode", lambda *_: pytest.fail("it was decoded again"))
        again = load_dataset(name, size=16, cache_dir=tmp_path / "data")
        for found in (large, again):
            assert found.fingerprint == small.fingerprint
            for split in ("train", "validation", "test"):
                mapped, kept = getattr(found, split), getattr(small, split)
                assert torch.equal(mapped.images, kept.images)
                assert torch.equal(mapped.labels, kept.labels)
                assert mapped.mapped is not None
                assert torch.equal(mapped.mapped.open(), kept.images)
        files = sorted(path.suffix for path in (tmp_path / "data/decoded").iterdir())
        assert files == [".u8"] * len(splits)


def test_sweep_compress_takes_it_and_a_users_own(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(train=20, val=5)
    (tmp_path / "my_photo_code.py").write_text(
        "import torch\nfrom torch import nn\nfrom core.datasets import load_dataset\n"
        "def data(): return load_dataset('image-folder:photos', size=8)\n"
        "def net(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.pt"
    torch.save(load_model("my_photo_code:net", num_classes=3, in_channels=3).state_dict(), weights)
    common = [
        "compress",
        "--checkpoint",
        str(weights),
        "--ratio",
        "0.5",
        "--json",
        "--results",
        str(tmp_path / "results"),
    ]
    assert main([*common, "--model", "my_photo_code:net", "--dataset", "my_photo_code:data"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"][0]["size"] == 8
    torch.save(load_model("torchvision:squeezenet1_1", num_classes=3).state_dict(), weights)
    dataset = "image-folder:photos?val=2&train=5"
    assert main([*common, "--model", "torchvision:squeezenet1_1", "--dataset", dataset]) == 0
    assert len(json.loads(capsys.readouterr().out)["sites"]) == 25
