"""``folder:PATH``: real files, and one sentence for everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.calibration import Scale, calibration_images, collect
from core.calibration import folder as source
from core.config import TrialConfig
from core.errors import DataError, UsageError
from sweep.cli import main

IMAGENET = Scale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = Scale((0.0,), (1.0,))
SIDE = (1, 28, 28)


def write(path: Path, pixels: np.ndarray | int = 100, size: tuple[int, int] = (28, 28), mode: str = "L") -> Path:
    """A picture of these pixels, or of one grey; ``size`` is (width, height)."""
    if isinstance(pixels, int):
        pixels = np.full(size[::-1], pixels, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Twenty grey pictures; picture i has the grey value i."""
    for i in range(20):
        write(tmp_path / "photos" / f"{i:02}.png", i)
    return tmp_path / "photos"


def values(images: torch.Tensor) -> list[int]:
    """The grey value of each image, its own everywhere."""
    flat = (images * 255).flatten(1)
    assert torch.equal(flat, flat[:, :1].expand_as(flat))
    return flat[:, 0].round().int().tolist()


class TestDrawing:
    def test_without_repetition_by_the_seed(self, greys: Path) -> None:
        found = values(calibration_images(f"folder:{greys}", shape=SIDE, count=8, seed=3, scale=UNIT))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
        assert found == order[:8].tolist()

    def test_all_of_them_where_more_are_asked_for(self, greys: Path) -> None:
        found = values(calibration_images(f"folder:{greys}", shape=SIDE, count=256, scale=UNIT))
        assert sorted(found) == list(range(20))

    def test_the_names_decide_and_not_when_files_were_written(self, greys: Path, tmp_path: Path) -> None:
        for i in reversed(range(20)):
            write(tmp_path / "other" / f"{i:02}.png", i)
        one, other = (calibration_images(f"folder:{f}", shape=SIDE, count=5) for f in (greys, tmp_path / "other"))
        assert torch.equal(one, other)

    def test_what_was_collected_gives_the_same_and_reads_no_file(self, greys: Path) -> None:
        name = f"folder:{greys}"
        direct = calibration_images(name, shape=SIDE, count=7, seed=2, scale=UNIT)
        collected = collect(name, SIDE)
        assert collected is not None
        assert collected.dtype == torch.uint8
        for path in greys.iterdir():
            path.unlink()
        again = calibration_images(name, shape=SIDE, count=7, seed=2, scale=UNIT, collected=collected)
        assert torch.equal(again, direct)
        assert collect("noise", SIDE) is None

    def test_of_very_many_some_are_drawn_from(self, greys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source, "MOST", 5)
        found = values(calibration_images(f"folder:{greys}", shape=SIDE, count=20, scale=UNIT))
        assert sorted(found) == [0, 4, 8, 12, 16]

    def test_folders_below_count_and_hidden_or_other_files_do_not(self, greys: Path) -> None:
        write(greys / "more" / "a.JPG", 200)
        write(greys / ".thumbnails" / "b.png")
        (greys / "._c.png").write_bytes(b"not an image")
        (greys / "notes.txt").write_text("hello")
        assert len(calibration_images(f"folder:{greys}", shape=SIDE)) == 21


class TestPictures:
    def test_images_of_the_networks_size_stay_as_they_are(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
        write(tmp_path / "a.png", pixels)
        found = calibration_images(f"folder:{tmp_path}", shape=SIDE, scale=UNIT)
        assert torch.allclose(found * 255, torch.tensor(pixels).float().expand(1, 1, 28, 28))

    @pytest.mark.parametrize("size", [(80, 40), (40, 80), (5, 5), (200, 31), (29, 28)])
    @pytest.mark.parametrize("shape", [(3, 16, 16), (3, 8, 20), (3, 20, 8)])
    def test_others_are_made_to_cover_it(
        self, size: tuple[int, int], shape: tuple[int, int, int], tmp_path: Path
    ) -> None:
        write(tmp_path / "a.png", 77, size)
        found = calibration_images(f"folder:{tmp_path}", shape=shape, scale=Scale((0.0,) * 3, (1.0,) * 3))
        assert found.shape == (1, *shape)
        assert values(found) == [77]

    def test_the_middle_is_kept(self, tmp_path: Path) -> None:
        pixels = np.zeros((20, 60), dtype=np.uint8)
        pixels[:, 20:40] = 250
        write(tmp_path / "a.png", pixels)
        assert values(calibration_images(f"folder:{tmp_path}", shape=(1, 20, 20), scale=UNIT)) == [250]

    def test_colours_become_grey_and_grey_becomes_coloured(self, tmp_path: Path) -> None:
        pixels = np.zeros((9, 9, 3), dtype=np.uint8)
        pixels[..., 0] = 255
        write(tmp_path / "red.png", pixels, mode="RGB")
        grey = calibration_images(f"folder:{tmp_path}", shape=(1, 9, 9), scale=UNIT)
        assert values(grey) == [76]  # ITU-R 601
        red = calibration_images(f"folder:{tmp_path}", shape=(3, 9, 9), scale=IMAGENET)
        assert red[0, :, 4, 4].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
        write(tmp_path / "red.png", 51, (9, 9))
        coloured = calibration_images(f"folder:{tmp_path}", shape=(3, 9, 9), scale=Scale((0.0,) * 3, (1.0,) * 3))
        assert values(coloured) == [51]

    @pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "bmp", "gif", "ppm", "tif", "tiff", "webp"])
    @pytest.mark.parametrize("mode", ["RGB", "L", "P"])
    def test_formats(self, ending: str, mode: str, tmp_path: Path) -> None:
        if mode == "P" and ending in ("jpg", "jpeg", "ppm", "webp"):
            mode = "RGB"
        write(tmp_path / f"a.{ending}", 120, mode=mode)
        found = calibration_images(f"folder:{tmp_path}", shape=SIDE, scale=UNIT)
        assert float((found * 255 - 120).abs().max()) <= 3

    def test_transparency_is_dropped(self, tmp_path: Path) -> None:
        pixels = np.full((8, 8, 4), 90, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert values(calibration_images(f"folder:{tmp_path}", shape=(1, 8, 8), scale=UNIT)) == [90]

    def test_without_a_scale_every_channel_has_mean_0_and_variance_1(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        for i in range(6):
            write(tmp_path / f"{i}.png", rng.integers(50, 90, (10, 10, 3), dtype=np.uint8), mode="RGB")
        found = calibration_images(f"folder:{tmp_path}", shape=(3, 10, 10))
        assert found.mean((0, 2, 3)).abs().max() < 1e-5
        assert (found.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


class TestRefusals:
    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"calibration 'folder:.*nowhere': /.*nowhere is not a folder: name one"):
            calibration_images(f"folder:{tmp_path / 'nowhere'}", shape=SIDE)

    def test_a_relative_path_is_shown_in_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=f"calibration 'folder:photos': {tmp_path}/photos is not a folder"):
            calibration_images("folder:photos", shape=SIDE)

    def test_a_file_instead_of_a_folder(self, greys: Path) -> None:
        with pytest.raises(DataError, match=r"00\.png is not a folder"):
            calibration_images(f"folder:{greys / '00.png'}", shape=SIDE)

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("hello")
        with pytest.raises(DataError, match=r"holds no image \(\.bmp, .*\): put some there, or name another folder"):
            calibration_images(f"folder:{tmp_path}", shape=SIDE)

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
    def test_a_damaged_image(self, content: bytes, greys: Path) -> None:
        (greys / "21.png").write_bytes(content)
        with pytest.raises(DataError, match=r"21\.png cannot be read as an image \(.*\): replace or remove it"):
            calibration_images(f"folder:{greys}", shape=SIDE)

    def test_a_network_that_takes_neither_grey_nor_colour(self, greys: Path) -> None:
        with pytest.raises(UsageError, match="images have 1 or 3 channels, and the network takes 4"):
            calibration_images(f"folder:{greys}", shape=(4, 28, 28))


class TestConfigurations:
    def test_the_name_is_part_of_the_key(self) -> None:
        one, other = (
            TrialConfig.parse({"decomposition": "least-squares", "calibration": f"folder:{name}"}) for name in "ab"
        )
        assert one.calibration == "folder:a"
        assert one.key != other.key
        assert TrialConfig.parse(one.as_json()) == one

    def test_it_is_left_out_where_no_image_is_looked_at(self) -> None:
        assert TrialConfig.parse({"calibration": "folder:a"}) == TrialConfig()

    def test_the_command_line(
        self, greys: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(greys.parent)
        words = "compress --model lenet-300-100 --dataset digits --ratio 0.5 --decomposition least-squares --json"
        assert main([*words.split(), "--calibration", "folder:photos"]) == 0
        assert json.loads(capsys.readouterr().out)["config"]["calibration"] == "folder:photos"
        assert main([*words.split(), "--calibration", "folder:elsewhere"]) == 1
        assert "elsewhere is not a folder" in capsys.readouterr().err
        assert main([*words.split(), "--calibration", "folder"]) == 2
        assert "write folder:PATH" in capsys.readouterr().err
