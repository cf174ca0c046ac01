"""Networks of timm and of Hugging Face by name: built without a network, their weights from files on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from core.baselines import prepare_baseline
from core.compress import compress
from core.config import BaselineConfig
from core.errors import CheckpointError, UnknownNameError, UsageError
from core.export import load, save
from core.models import is_pretrained, licence_of, load_model, preprocessing_of
from core.snapshots import content_of, folder_of, weights_of

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
READING = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3, "do_center_crop": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "do_rescale": True, "rescale_factor": 1 / 255,
}  # fmt: skip
PLAIN = {"image_processor_type": "ViTImageProcessorFast", "resample": 2, "image_mean": [0.5], "image_std": [0.5]}


def test_neither_package_is_imported_where_it_is_not_used() -> None:
    code = (
        "import sys, core.models, core.config, sweep.commands.missing; core.models.load_model('lenet-300-100');"
        "print(sorted({'timm', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(("name", "package"), [("timm:resnet18", "timm"), ("huggingface:here", "transformers")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    extra = name.partition(":")[0]
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'\n{extra} = ["{package}>=' in pyproject
    with pytest.raises(UsageError, match=rf"needs the package '{package}'.*pip install 'neuron-merging-sweep\[{extra}"):
        load_model(name)


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self) -> None:
        pytest.importorskip("timm")

    def test_a_network_is_compressed_and_comes_back(self, tmp_path: Path) -> None:
        model = load_model("timm:resnet18", num_classes=7, in_channels=1)
        images = IMAGES[:, :1]
        assert model(images).shape == (2, 7)
        assert torch.equal(model(images), load_model("timm:resnet18", num_classes=7, in_channels=1)(images))
        result = compress(model, images, ratio=0.5)
        path = save(result.model, tmp_path / "small.safetensors")
        assert torch.equal(load(path)(images), result.model(images))

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("timm:resnett18", UnknownNameError, "unknown timm model 'resnett18'; did you mean 'resnet18'"),
            ("timm:resnet18@a1_in2k", UnknownNameError, "weights of timm's resnet18 'a1_in2k'; did you mean 'a1_in1k'"),
            ("timm:resnet18.a1_in1k", UsageError, "write timm:resnet18@a1_in1k for the weights"),
            ("timm:vit_base_patch16_224@dino", UsageError, "of its features alone"),
        ],
    )
    def test_what_is_not_there(self, name: str, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            load_model(name, pretrained=False)

    def test_published_weights_have_their_own_classes_and_images(self) -> None:
        name = "timm:vit_tiny_patch16_384@augreg_in21k_ft_in1k"
        assert is_pretrained(name)
        model = load_model(name, num_classes=7, pretrained=False)
        assert model(torch.zeros(1, 3, 384, 384)).shape == (1, 1000)
        with pytest.raises(UsageError, match="takes images of 3 channels, not 1"):
            load_model(name, in_channels=1, pretrained=False)

    def test_published_weights_bring_their_preprocessing(self) -> None:
        name = "timm:resnet50@a1_in1k"
        found = preprocessing_of(name)
        assert (found["size"], found["resize"], found["interpolation"]) == (224, 235, "bicubic")
        assert found["mean"] == pytest.approx((0.485, 0.456, 0.406))
        assert licence_of(name) == "apache-2.0"
        assert licence_of("timm:resnet50") == ""
        config = BaselineConfig(model=name, dataset="image-folder:photographs")
        assert config.loading(config.model, config.dataset) == {"size": 224, "resize": 235, "interpolation": "bicubic"}
        own = BaselineConfig(model=name, dataset="image-folder:photographs", preprocessing="dataset")
        assert own.loading(own.model, own.dataset)["size"] is None

    def test_a_way_of_reading_images_that_is_not_known_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"crop_mode 'border'.* set baseline.preprocessing = \"dataset\""):
            preprocessing_of(_with_crop("border"))

    def test_weights_come_from_a_file_as_plain_tensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        theirs = timm.create_model("resnet18")
        save_file(theirs.state_dict(), tmp_path / "model.safetensors")
        real = timm.create_model

        def here(name: str, pretrained: bool = False, **rest: Any) -> Any:
            overlay = {"file": str(tmp_path / "model.safetensors")} if pretrained else None
            return real(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **rest)

        monkeypatch.setattr(timm, "create_model", here)
        model = load_model("timm:resnet18@a1_in1k")
        assert torch.equal(model(IMAGES), theirs.eval()(IMAGES))

    def test_weights_that_cannot_be_had_are_said_to_be_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        def unreachable(*_: object, **__: object) -> None:
            raise OSError("network is unreachable")

        monkeypatch.setattr(timm, "create_model", unreachable)
        message = r"weights of 'timm:resnet18@a1_in1k' cannot be loaded \(.*unreachable\): .*timm/resnet18.a1_in1k"
        with pytest.raises(CheckpointError, match=message):
            load_model("timm:resnet18@a1_in1k")


def _with_crop(mode: str) -> str:
    import timm

    for kind in timm.list_models():
        for cfg in timm.models.get_arch_pretrained_cfgs(kind).values():
            if cfg.crop_mode == mode and cfg.has_weights:
                return f"timm:{kind}@{cfg.tag}"
    raise AssertionError(mode)


class TestHuggingFace:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        transformers = pytest.importorskip("transformers")
        shape = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "embedding_size": 8, "layer_type": "basic"}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            network = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=5, **shape))
        network.save_pretrained(tmp_path / "net")
        (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(READING))
        return tmp_path / "net"

    def test_a_folder_is_compressed_and_comes_back(self, folder: Path, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        name = f"huggingface:{folder}"
        model = load_model(name, num_classes=77)
        theirs = transformers.ResNetForImageClassification.from_pretrained(folder).eval()
        assert torch.equal(model(IMAGES), theirs(IMAGES).logits)
        result = compress(model, IMAGES, ratio=0.5)
        assert sum(p.numel() for p in result.model.parameters()) < 0.4 * sum(p.numel() for p in model.parameters())
        path = save(result.model, tmp_path / "small.safetensors")
        assert torch.equal(load(path)(IMAGES), result.model(IMAGES))
        assert not torch.equal(load_model(name, pretrained=False)(IMAGES), model(IMAGES))
        with pytest.raises(UsageError, match="takes images of 3 channels, not 1"):
            load_model(name, in_channels=1)
        with pytest.raises(UsageError, match="comes with weights of its own"):
            load_model(name, folder / "model.safetensors")

    def test_its_preprocessing_is_its_own(self, folder: Path) -> None:
        found = preprocessing_of(f"huggingface:{folder}")
        assert (found["size"], found["resize"], found["interpolation"]) == (224, 256, "bicubic")
        assert (found["mean"], found["std"]) == ((0.5,) * 3, (0.25,) * 3)

    def test_it_is_the_original_of_a_sweep_on_photographs(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for part in ("train", "val"):
            for number in range(5):
                photo = Image.new("RGB", (96, 80), (40 * number, 90, 20))
                (place := tmp_path / "photos" / part / f"class {number}").mkdir(parents=True)
                for copy in range(4):
                    photo.save(place / f"{copy}.png")
        monkeypatch.setattr("core.baselines.train", lambda *_, **__: pytest.fail("it was trained"))
        config = BaselineConfig(model=f"huggingface:{folder}", dataset=f"image-folder:{tmp_path / 'photos'}")
        found = prepare_baseline(config, tmp_path / "cache")
        assert (found.origin, found.dataset.shape, found.dataset.mean) == ("checkpoint", (3, 224, 224), (0.5,) * 3)
        inputs = found.dataset.inputs("test")[0][:2]
        theirs = pytest.importorskip("transformers").ResNetForImageClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            assert torch.equal(found.model(inputs), theirs(inputs).logits)
        assert prepare_baseline(config, tmp_path / "cache").origin == "cache"

    def test_what_cannot_be_had_is_said_before_the_data_are_read(self, folder: Path, tmp_path: Path) -> None:
        (folder / "model.safetensors").unlink()
        config = BaselineConfig(model=f"huggingface:{folder}", dataset=f"image-folder:{tmp_path / 'gone'}")
        with pytest.raises(CheckpointError, match="has no weights"):
            prepare_baseline(config, tmp_path / "cache")

    def test_weights_that_do_not_fill_the_classifier_are_refused(self, folder: Path) -> None:
        own = load_file(folder / "model.safetensors")
        features = {name: value for name, value in own.items() if "classifier" not in name}
        save_file(features, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"lack classifier.* and 1 more, .*not those of the classifier"):
            load_model(f"huggingface:{folder}")

    def test_code_that_comes_with_a_model_is_not_run(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text("from pathlib import Path\nPath('pwned').touch()\n")
        with pytest.raises(UsageError, match="does not know 'evil' networks"):
            load_model(f"huggingface:{folder}")
        assert not Path("pwned").exists()

    def test_no_classifier(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
        with pytest.raises(UsageError, match="no image classifier of the kind 'bert'"):
            load_model(f"huggingface:{folder}")


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "net"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "resnet"}')
        save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
        return folder

    def test_the_content_is_the_identity(self, folder: Path) -> None:
        config = BaselineConfig(model=f"huggingface:{folder}", dataset="image-folder:photographs")
        first = config.key
        assert config.key == first
        save_file({"a": torch.ones(2)}, folder / "model.safetensors")
        assert config.key != first
        assert content_of("timm:resnet18@a1_in1k", None) is None

    def test_a_pickle_is_never_opened(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"pytorch_model.bin, a pickle, which is not opened: .*safetensors"):
            weights_of(folder)
        (folder / "pytorch_model.bin").unlink()
        with pytest.raises(CheckpointError, match=r"has no weights \(model.safetensors\)"):
            weights_of(folder)

    def test_weights_in_parts(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part-1.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
        assert weights_of(folder) == [folder / "part-1.safetensors"]
        index.write_text(json.dumps({"weight_map": {"a": "part-2.safetensors"}}))
        with pytest.raises(CheckpointError, match=r"lacks part-2.safetensors"):
            weights_of(folder)
        index.write_text(json.dumps({"weight_map": {"a": "../part-1.safetensors"}}))
        with pytest.raises(CheckpointError, match="lacks"):
            weights_of(folder)

    def test_a_model_in_the_cache(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        own = tmp_path / "hub" / "models--someone--net"
        (own / "refs").mkdir(parents=True)
        (own / "refs" / "main").write_text("abc123")
        (own / "snapshots").mkdir()
        folder.rename(own / "snapshots" / "abc123")
        assert folder_of("huggingface:someone/net") == own / "snapshots" / "abc123"
        assert folder_of("huggingface:someone/net@abc123") == own / "snapshots" / "abc123"
        for name in ("someone/other", "someone/net@v2", "", "../hub"):
            with pytest.raises(UsageError, match=r"there is no folder .* `hf download"):
                folder_of(f"huggingface:{name}")

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ({"size": 224}, (224, 224)),
            ({"size": {"height": 384, "width": 384}}, (384, 384)),
            (
                {
                    "size": {"shortest_edge": 224},
                    "crop_pct": 0.875,
                    "feature_extractor_type": "ConvNextFeatureExtractor",
                    "image_processor_type": None,
                },
                (224, 256),
            ),
            ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 256)),
            ({"size": 256, "crop_size": 224, "do_center_crop": False}, (256, 256)),
        ],
    )
    def test_how_images_are_read(self, folder: Path, told: dict[str, Any], expected: tuple[int, int]) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(PLAIN | told))
        found = preprocessing_of(f"huggingface:{folder}")
        assert (found["size"], found["resize"]) == expected

    @pytest.mark.parametrize(
        "told",
        [
            {},
            {"size": {"height": 224, "width": 192}},
            {"size": 224, "resample": 1},
            {"size": 224, "resample": None},
            {"size": 224, "rescale_factor": 1},
            {"size": 224, "rescale_offset": True},
            {"size": 224, "do_flip_channel_order": True},
            {"size": 224, "image_processor_type": "EfficientNetImageProcessor"},
            {"size": 224, "image_processor_type": None},
            {"size": 224, "rescale_factor": "a 255th"},
            {"size": 224, "resample": [2]},
            {"size": 224, "image_mean": 7},
            {"size": 224, "image_std": ["wide"]},
            {"size": 224, "crop_pct": 0, "image_processor_type": "ConvNextImageProcessor"},
        ],
    )
    def test_ways_that_are_not_known_are_refused(self, folder: Path, told: dict[str, Any]) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(PLAIN | told))
        with pytest.raises(UsageError, match=r'set baseline\.preprocessing = "dataset"'):
            preprocessing_of(f"huggingface:{folder}")
