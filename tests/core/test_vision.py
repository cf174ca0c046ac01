"""torchvision's weights by name: kept by torchvision, loaded as plain tensors, refused in one sentence."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from core.baselines import prepare_baseline
from core.compress import compress
from core.config import BaselineConfig
from core.datasets import ImageDataset, Split
from core.errors import CheckpointError, ModelError, UnknownNameError, UsageError
from core.export import load, save
from core.models import load_model

NAME = "torchvision:squeezenet1_1@IMAGENET1K_V1"
State = dict[str, Tensor]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps downloads, empty; and a network that cannot be reached."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def publish(hub: Path) -> Callable[..., State]:
    """Put a file with random weights where torchvision keeps its downloads."""

    def put(kind: str, weights: str = "IMAGENET1K_V1", **arguments: Any) -> State:
        model = torchvision.models.get_model(kind, init_weights=False, **arguments) if arguments else None
        state = (model or torchvision.models.get_model(kind)).state_dict()
        url = torchvision.models.get_model_weights(kind)[weights].url
        hub.mkdir(parents=True, exist_ok=True)
        torch.save(state, hub / url.rpartition("/")[2])
        return state

    return put


def test_kept_weights_are_loaded_in_silence(publish: Any, capfd: pytest.CaptureFixture[str]) -> None:
    state = publish("squeezenet1_1")
    model = load_model(NAME, num_classes=7)
    assert not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000), "the weights' own number of classes"
    assert capfd.readouterr() == ("", "")


def test_default_is_a_name_too(publish: Any) -> None:
    publish("squeezenet1_1")
    again = load_model("torchvision:squeezenet1_1@DEFAULT")
    assert torch.equal(again.state_dict()["features.0.weight"], load_model(NAME).state_dict()["features.0.weight"])


def test_what_is_downloaded_is_kept(hub: Path, publish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = publish("squeezenet1_1")
    fetched: list[str] = []

    def fetch(url: str, file: str, *_: object, **__: object) -> None:
        fetched.append(url)
        torch.save(state, file)

    for path in hub.iterdir():
        path.unlink()
    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    load_model(NAME)
    load_model(NAME)
    assert len(fetched) == 1


def test_without_network_the_file_and_its_place_are_named(hub: Path) -> None:
    message = (
        r"IMAGENET1K_V1 of torchvision's squeezenet1_1 cannot be loaded \(.*unreachable.*\): put the file https:.*"
    )
    with pytest.raises(CheckpointError, match=message + rf"squeezenet1_1-.*\.pth into {hub}, or .* checkpoint"):
        load_model(NAME)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]


def test_a_file_that_is_more_than_weights_is_not_opened(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    hub.mkdir(parents=True)
    torch.save({"features.0.weight": Evil()}, hub / url.rpartition("/")[2])
    monkeypatch.chdir(hub)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(NAME)
    assert not (hub / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet18@IMAGENET1K_V3", "unknown weights of torchvision's resnet18 'IMAGENET1K_V3'; did you"),
        ("torchvision:resnet18@", "unknown weights of torchvision's resnet18 ''; known: "),
        ("torchvision:resnet81@IMAGENET1K_V1", "unknown torchvision model 'resnet81'; did you mean 'resnet1"),
    ],
)  # fmt: skip
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_model(name)


def test_weights_and_a_checkpoint_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comes with weights of its own: leave out either them or the checkpoint"):
        load_model(NAME, tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("kind", "weights", "arguments", "size"),
    [
        ("googlenet", "IMAGENET1K_V1", {"aux_logits": True}, 64),
        pytest.param("inception_v3", "IMAGENET1K_V1", {"aux_logits": True}, 96, marks=pytest.mark.slow),
        ("squeezenet1_1", "IMAGENET1K_V1", {}, 64),
    ],
)
def test_an_export_comes_back_without_a_download(
    hub: Path, publish: Any, tmp_path: Path, kind: str, weights: str, arguments: dict[str, Any], size: int
) -> None:
    """torchvision builds some networks otherwise when it has weights for them; the file brings back that one."""
    publish(kind, weights, **arguments)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    result = compress(load_model(f"torchvision:{kind}@{weights}"), images, ratio=0.5)
    path = save(result.model, tmp_path / "net.safetensors")
    for file in hub.iterdir():
        file.unlink()
    with torch.no_grad():
        assert torch.equal(load(path)(images), result.model(images))


def test_larger_images_of_a_vision_transformer_are_known() -> None:
    model = load_model("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1", pretrained=False)
    assert model.image_size == 384


def dataset(classes: int) -> ImageDataset:
    part = Split(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), torch.arange(8))
    names = tuple(f"class {i}" for i in range(classes))
    return ImageDataset("photos", part, part, part, (0.5,) * 3, (0.5,) * 3, names)


def test_a_baseline_with_weights_is_not_trained(
    hub: Path, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = publish("squeezenet1_1")
    monkeypatch.setattr("core.baselines.train", lambda *_, **__: pytest.fail("it was trained"))
    config = BaselineConfig(model=NAME, dataset="image-folder:photos")
    first = prepare_baseline(config, tmp_path / "cache", dataset=dataset(1000))
    assert first.origin == "checkpoint"
    assert torch.equal(first.model.state_dict()["classifier.1.bias"], state["classifier.1.bias"])
    for file in hub.iterdir():
        file.unlink()
    again = prepare_baseline(config, tmp_path / "cache", dataset=dataset(1000))
    assert again.origin == "cache"
    assert torch.equal(again.model.state_dict()["classifier.1.bias"], state["classifier.1.bias"])
    assert config.key == BaselineConfig(model=NAME, dataset="image-folder:photos", epochs=3).key


def test_weights_for_other_classes_are_refused_before_a_download(hub: Path, tmp_path: Path) -> None:
    config = BaselineConfig(model=NAME, dataset="image-folder:photos")
    with pytest.raises(
        ModelError, match="tell 1000 classes apart, and 'photos' has 10: use a dataset with the weights'"
    ):
        prepare_baseline(config, tmp_path / "cache", dataset=dataset(10))


def test_every_published_weight_is_a_classifiers_or_refused() -> None:
    kinds = torchvision.models.list_models(torchvision.models)
    assert len(kinds) >= 70
    features = []
    for kind in kinds:
        for weights in torchvision.models.get_model_weights(kind):
            if weights.meta["categories"] is None:
                features.append((kind, weights.name))
            else:
                assert len(weights.meta["categories"]) == 1000
    assert features == [("vgg16", "IMAGENET1K_FEATURES")]
    with pytest.raises(UsageError, match="of torchvision's vgg16 are of its features alone: choose others"):
        load_model("torchvision:vgg16@IMAGENET1K_FEATURES")
