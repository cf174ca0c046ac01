"""Splits, normalisation, where files are looked for, downloads that fail or succeed, and damaged files."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from core.datasets import DATASETS, ImageDataset, Split, download, fashion_mnist, load_dataset
from core.datasets.base import hold_out, pad_to
from core.datasets.idx import read_idx
from core.errors import DataError, UnknownNameError, UsageError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path, train: int = 40, test: int = 20, zipped: bool = True, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, count in (("train", train), ("t10k", test)):
        images = idx(rng.integers(0, 256, (count, 28, 28)))
        labels = idx(np.arange(count) % 10)
        for file, raw in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
            if zipped:
                (folder / f"{file}.gz").write_bytes(gzip.compress(raw))
            else:
                (folder / file).write_bytes(raw)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without FashionMNIST and without network; the empty current directory is returned."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.delenv("SWEEP_DATA_DIR", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "not-installed")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    monkeypatch.setattr(download.shutil, "which", lambda _: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestSplits:
    def test_normalise_is_the_formula(self) -> None:
        images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
        split = Split(images, torch.tensor([0]))
        dataset = ImageDataset("x", split, split, split, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), ("a",))
        expected = torch.tensor([(0 - 0.1) / 1, (0.2 - 0.2) / 2, (1 - 0.3) / 4]).view(1, 3, 1, 1)
        assert torch.allclose(dataset.normalise(images), expected)
        floats = images.float() / 255
        assert torch.allclose(dataset.normalise(floats), expected)
        assert torch.equal(floats, images.float() / 255), "its argument was changed"

    def test_inputs_are_normalised_and_limited(self) -> None:
        dataset = load_dataset("digits")
        images, labels = dataset.inputs("validation", limit=5)
        assert images.dtype == torch.float32
        assert torch.equal(images, dataset.normalise(dataset.validation.images[:5]))
        assert torch.equal(labels, dataset.validation.labels[:5])
        assert len(dataset.inputs("train")[1]) == len(dataset.train)

    def test_hold_out_is_a_fixed_tenth_and_a_partition(self) -> None:
        images, labels = torch.arange(1000).view(-1, 1, 1, 1), torch.arange(1000)
        train, validation = hold_out(images, labels)
        assert len(validation) == 100
        assert sorted([*train.labels.tolist(), *validation.labels.tolist()]) == list(range(1000))
        assert torch.equal(hold_out(images, labels)[1].labels, validation.labels)
        assert torch.equal(train.images.flatten(), train.labels)
        assert validation.labels.tolist() != list(range(100)), "not at random"

    def test_labels_must_match_images(self) -> None:
        with pytest.raises(DataError, match=r"shapes \(2, 1, 4, 4\) and \(3,\)"):
            Split(torch.zeros(2, 1, 4, 4), torch.zeros(3))

    def test_padding_is_black_and_centred(self) -> None:
        padded = pad_to(torch.full((1, 1, 28, 28), 7, dtype=torch.uint8), 33)
        assert padded.shape == (1, 1, 33, 33)
        assert padded.dtype == torch.uint8
        assert int(padded.sum()) == 7 * 28 * 28
        assert bool((padded[0, 0, 2:30, 2:30] == 7).all())

    def test_fingerprint_changes_with_the_data(self) -> None:
        dataset = load_dataset("digits")
        labels = dataset.test.labels.clone()
        labels[0] += 1
        other = ImageDataset(
            **{**vars(dataset), "test": Split(dataset.test.images, labels)},
        )
        assert other.fingerprint != dataset.fingerprint
        assert load_dataset("digits").fingerprint == dataset.fingerprint


class TestDigits:
    def test_sizes_and_strata(self) -> None:
        dataset = load_dataset("digits")
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [1077, 180, 540]
        assert dataset.shape == (1, 28, 28)
        for part in (dataset.train, dataset.validation, dataset.test):
            share = torch.bincount(part.labels, minlength=10) / len(part)
            assert bool(((share > 0.085) & (share < 0.115)).all())

    def test_splits_share_no_image(self) -> None:
        dataset = load_dataset("digits", size=8)
        rows = [{tuple(image.flatten().tolist()) for image in part.images} for part in (dataset.train, dataset.test)]
        assert len(rows[0]) + len(rows[1]) > 1500
        assert not rows[0] & rows[1]

    def test_native_size_is_the_pixels_themselves(self) -> None:
        from sklearn.datasets import load_digits

        images = load_dataset("digits", size=8).test.images
        originals = {tuple(image.flatten().tolist()) for image in load_digits().images / 16}
        assert tuple(images[0].flatten().tolist()) in originals

    def test_too_small(self) -> None:
        with pytest.raises(UsageError, match="size = 7: the digits are 8x8"):
            load_dataset("digits", size=7)


class TestFashionMnist:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("layout", ["", "fashion-mnist", "FashionMNIST/raw"])
    def test_found_in_the_users_folder(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch, layout: str, zipped: bool
    ) -> None:
        write_fashion(bare / "mine" / layout, zipped=zipped)
        monkeypatch.setenv("SWEEP_DATA_DIR", str(bare / "mine"))
        dataset = load_dataset("fashion-mnist")
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 20]
        assert dataset.train.images.dtype == torch.uint8
        assert dataset.test.labels.tolist() == [i % 10 for i in range(20)]

    def test_order_of_places(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        places = {"given": 21, "variable": 22, "not-installed": 23, "data/fashion-mnist": 24}
        for folder, count in places.items():
            write_fashion(bare / folder, test=count)
        monkeypatch.setenv("SWEEP_DATA_DIR", str(bare / "variable"))
        assert len(load_dataset("fashion-mnist", "given").test) == 21
        assert len(load_dataset("fashion-mnist").test) == 22
        monkeypatch.delenv("SWEEP_DATA_DIR")
        assert len(load_dataset("fashion-mnist").test) == 23
        for file in (bare / "not-installed").iterdir():
            file.unlink()
        assert len(load_dataset("fashion-mnist").test) == 24

    def test_an_incomplete_folder_is_passed_over(self, bare: Path) -> None:
        write_fashion(bare / "mine", test=21)
        (bare / "mine" / "t10k-labels-idx1-ubyte.gz").unlink()
        write_fashion(bare / "data")
        assert len(load_dataset("fashion-mnist", "mine").test) == 20

    def test_size_pads(self, bare: Path) -> None:
        write_fashion(bare / "data")
        assert load_dataset("fashion-mnist", size=32).shape == (1, 32, 32)
        with pytest.raises(UsageError, match="size = 27: the images are 28x28"):
            load_dataset("fashion-mnist", size=27)

    def test_offline_says_where_to_put_the_files(self, bare: Path) -> None:
        heard: list[str] = []
        with pytest.raises(DataError, match=r"network is unreachable; .*apt-get is not.*set SWEEP_DATA_DIR to it$"):
            load_dataset("fashion-mnist", progress=heard.append)
        assert heard == [
            "fashion-mnist: downloading (torchvision)",
            "fashion-mnist: downloading (Debian package)",
        ]
        assert list((bare / "data").iterdir()) == [], "left something behind"

    def test_torchvision_download_is_kept_in_the_cache(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def noisy(root: Path, download: bool) -> None:
            assert download
            print("100%|#####| 26.4M/26.4M", file=sys.stderr)
            write_fashion(Path(root) / "FashionMNIST" / "raw")

        monkeypatch.setattr(torchvision.datasets, "FashionMNIST", noisy)
        load_dataset("fashion-mnist")
        assert len(list((bare / "data" / "fashion-mnist").iterdir())) == 4
        assert [path.name for path in (bare / "data").iterdir()] == ["fashion-mnist"]
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(torchvision.datasets, "FashionMNIST", None)
        load_dataset("fashion-mnist")

    def test_debian_package_is_unpacked_without_installing_it(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands: list[list[str]] = []

        def run(command: list[str], folder: Path) -> None:
            commands.append(command)
            if command[0] == "apt-get" and "update" not in command:
                if len(commands) == 1:
                    raise download.UnavailableError("Unable to locate package")
                (folder / "dataset.deb").touch()
            if command[0] == "dpkg-deb":
                assert (folder / command[2]).is_file(), "seen from the folder that it runs in"
                write_fashion(folder / "usr/share/datasets/fashion-mnist")

        monkeypatch.setattr(download.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(download, "_run", run)
        assert len(load_dataset("fashion-mnist").test) == 20
        assert [command[0] for command in commands] == ["apt-get", "apt-get", "apt-get", "dpkg-deb"]
        assert len(list((bare / "data" / "fashion-mnist").iterdir())) == 4

    @pytest.mark.parametrize("file", fashion_mnist.FILES)
    @pytest.mark.parametrize("damage", ["cut", "cut-inside", "text"])
    def test_damaged_files_are_named(self, bare: Path, file: str, damage: str) -> None:
        write_fashion(bare / "mine", zipped=damage != "cut-inside")
        path = bare / "mine" / (file if damage == "cut-inside" else f"{file}.gz")
        path.write_bytes(b"<html>not found</html>" if damage == "text" else path.read_bytes()[:-9])
        with pytest.raises(DataError, match=rf"{path.name} .*put an intact copy in its place"):
            load_dataset("fashion-mnist", "mine")

    def test_labels_of_another_dataset(self, bare: Path) -> None:
        write_fashion(bare / "mine")
        (bare / "mine" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(20))))
        with pytest.raises(DataError, match=r"t10k-labels.* has a label 19"):
            load_dataset("fashion-mnist", "mine")

    def test_images_and_labels_of_different_number(self, bare: Path) -> None:
        write_fashion(bare / "mine")
        (bare / "mine" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(7))))
        with pytest.raises(DataError, match=r"shapes \(20, 1, 28, 28\) and \(7,\)"):
            load_dataset("fashion-mnist", "mine")

    def test_real_one(self, fashion_mnist: ImageDataset) -> None:
        counts = [len(part) for part in (fashion_mnist.train, fashion_mnist.validation, fashion_mnist.test)]
        assert counts == [54_000, 6_000, 10_000]
        assert len(fashion_mnist.classes) == 10
        assert torch.bincount(fashion_mnist.test.labels).tolist() == [1000] * 10
        images, _ = fashion_mnist.inputs("test", limit=100)
        assert float(images.min()) == -1.0
        assert float(images.max()) == 1.0


class TestIdx:
    def test_round_trip(self, tmp_path: Path) -> None:
        array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        (tmp_path / "x").write_bytes(idx(array))
        assert read_idx(tmp_path / "x").tolist() == array.tolist()

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"\0\0\x08",
            b"\0\0\x08\x03\0\0",
            b"\0\0\x0d\x01\0\0\0\x04abcd",
            b"\0\0\x08\x00",
            idx(np.arange(3)) + b"x",
        ],
    )
    def test_refused(self, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "x").write_bytes(raw)
        with pytest.raises(DataError, match=r"x .*delete it"):
            read_idx(tmp_path / "x")


class TestCifar:
    @pytest.fixture(params=["cifar10", "cifar100"])
    def name(self, request: pytest.FixtureRequest, bare: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """Small files in the layout of the real ones; torchvision is told their checksums."""
        name: str = request.param
        reader = getattr(torchvision.datasets, name.upper())
        folder = bare / "mine" / reader.base_folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)

        def write(file: str, content: Any) -> str:
            raw = pickle.dumps(content)
            (folder / file).write_bytes(raw)
            return md5(raw, usedforsecurity=False).hexdigest()

        def batch(file: str) -> list[str]:
            labels = list(range(10)) * 2
            data = rng.integers(0, 256, (20, 3072)).astype(np.uint8)
            return [file, write(file, {"data": data, "labels" if name == "cifar10" else "fine_labels": labels})]

        key = "label_names" if name == "cifar10" else "fine_label_names"
        names = [f"class {i}" for i in range(10)]
        monkeypatch.setattr(reader, "train_list", [batch("data_batch_1"), batch("data_batch_2")])
        monkeypatch.setattr(reader, "test_list", [batch("test_batch")])
        meta = {"filename": "meta", "key": key, "md5": write("meta", {key: names})}
        monkeypatch.setattr(reader, "meta", meta)
        return name

    def test_loads(self, name: str, bare: Path) -> None:
        dataset = load_dataset(name, bare / "mine")
        assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 20]
        assert dataset.shape == (3, 32, 32)
        assert dataset.name == name
        folder = bare / "mine" / getattr(torchvision.datasets, name.upper()).base_folder
        first = pickle.loads((folder / "test_batch").read_bytes())["data"][0].reshape(3, 32, 32)
        assert torch.equal(dataset.test.images[0], torch.from_numpy(first))
        assert dataset.std == (0.2023, 0.1994, 0.2010), "the constants of the published evaluation"

    def test_damaged_files_are_refused_before_they_are_unpickled(self, name: str, bare: Path) -> None:
        folder = bare / "mine" / getattr(torchvision.datasets, name.upper()).base_folder
        (folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
        with pytest.raises(DataError, match=f"{folder.name} is incomplete or damaged"):
            load_dataset(name, bare / "mine")
        assert not (bare / "pwned").exists()

    def test_offline(self, name: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(_: object) -> None:
            raise OSError("network is unreachable")

        monkeypatch.setattr(getattr(torchvision.datasets, name.upper()), "download", offline)
        with pytest.raises(DataError, match=rf"{name} is not on this .*unreachable.*put cifar-.*SWEEP_DATA_DIR"):
            load_dataset(name)


MY_DATA = """
import torch
from core.datasets import ImageDataset, Split
part = Split(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))
def small(): return ImageDataset("small", part, part, part, (0.5,), (0.5,), ("only",))
def wrong(): return part
def fractions(): return Split(torch.zeros(4, 1, 8, 8), torch.zeros(4))
def beyond(): return ImageDataset("small", part, part, Split(part.images, part.labels + 1), (0.5,), (0.5,), ("only",))
def short(): return ImageDataset("small", part, part, Split(part.images, part.labels.int()), (0.5,), (0.5,), ("only",))
def failing(): raise OSError("disk is gone")
"""


class TestNames:
    def test_unknown(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown dataset 'fashionmnist'; did you mean 'fashion-mnist'"):
            load_dataset("fashionmnist")

    def test_the_registry_is_complete(self) -> None:
        assert DATASETS.names() == ["cifar10", "cifar100", "digits", "fashion-mnist", "photographs"]

    def test_users_function(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))
        (bare / "my_test_data.py").write_text(MY_DATA)
        assert load_dataset("my_test_data:small").name == "small"
        with pytest.raises(DataError, match="the function returned a Split, not an ImageDataset"):
            load_dataset("my_test_data:wrong")
        with pytest.raises(DataError, match="the function failed: OSError: disk is gone"):
            load_dataset("my_test_data:failing")
        with pytest.raises(UsageError, match="decides on its own size; leave it out"):
            load_dataset("my_test_data:small", size=32)
        with pytest.raises(UsageError, match="interpolation = bilinear: dataset 'my_test_data:small' decides"):
            load_dataset("my_test_data:small", interpolation="bilinear")
        with pytest.raises(DataError, match=r"^dataset 'my_test_data:fractions': labels are float32; expected whole"):
            load_dataset("my_test_data:fractions")
        with pytest.raises(DataError, match="test has labels from 1 to 1, and there are 1 classes: number them from 0"):
            load_dataset("my_test_data:beyond")
        assert load_dataset("my_test_data:short").test.labels.dtype == torch.int64

    @pytest.mark.parametrize("source", ["data_dir", "SWEEP_DATA_DIR"])
    def test_named_folder_that_does_not_exist(self, source: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if source != "data_dir":
            monkeypatch.setenv(source, "nowhere")
        with pytest.raises(UsageError, match=f"{source} = 'nowhere' is not a folder"):
            load_dataset("digits", "nowhere" if source == "data_dir" else None)

    @pytest.mark.parametrize("size", [0, -3, 10_000])
    def test_impossible_size(self, size: int) -> None:
        with pytest.raises(UsageError, match=f"size = {size}: must be between 1 and 1024"):
            load_dataset("digits", size=size)


def test_a_packed_file_that_unpacks_to_anything_is_read_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("core.datasets.idx.LARGEST", 2**16)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros(2**24))))
    with pytest.raises(DataError, match=r"x\.gz holds 65536 bytes, not what its header says"):
        read_idx(tmp_path / "x.gz")
