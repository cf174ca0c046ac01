"""Names, the published checkpoints' keys, the user's own factories, and refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import ModelError, UnknownNameError, UsageError
from core.models import MODELS, Recipe, load_model, recipe_for

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def linear(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def norm(name: str) -> set[str]:
    return {f"{name}.{part}" for part in BN}


def lenet_keys() -> set[str]:
    return linear("ip1") | linear("ip2") | linear("ip3")


def vgg16_keys() -> set[str]:
    keys = linear("classifier.0") | norm("classifier.1") | linear("classifier.3")
    for conv in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40):
        keys |= {f"feature.{conv}.weight"} | norm(f"feature.{conv + 1}")
    return keys


def resnet_keys(blocks: int) -> set[str]:
    keys = {"conv1.weight"} | norm("bn1") | linear("fc")
    for stage in (1, 2, 3):
        for i in range(blocks):
            block = f"layer{stage}.{i}"
            keys |= {f"{block}.conv1.weight", f"{block}.conv2.weight"} | norm(f"{block}.bn1") | norm(f"{block}.bn2")
            if stage > 1 and i == 0:
                keys |= {f"{block}.downsample.0.weight"} | norm(f"{block}.downsample.1")
    return keys


def wrn_keys(blocks: int) -> set[str]:
    keys = {"conv1.weight"} | norm("bn1") | linear("fc")
    for stage in (1, 2, 3):
        for i in range(blocks):
            block = f"block{stage}.layer.{i}"
            keys |= {f"{block}.conv1.weight", f"{block}.conv2.weight"} | norm(f"{block}.bn1") | norm(f"{block}.bn2")
            if i == 0:
                keys.add(f"{block}.convShortcut.weight")
    return keys


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("lenet-300-100", lenet_keys()),
        ("vgg16", vgg16_keys()),
        ("resnet20", resnet_keys(3)),
        ("resnet56", resnet_keys(9)),
        ("wrn-40-4", wrn_keys(6)),
    ],
)
def test_keys_are_those_of_the_published_checkpoints(name: str, keys: set[str]) -> None:
    assert set(load_model(name).state_dict()) == keys


def test_wrn_feeds_the_activation_to_shortcut_and_branch_where_the_width_changes() -> None:
    from core.models.wide_resnet import BasicBlock

    changing, same = BasicBlock(2, 3, 1).eval(), BasicBlock(2, 2, 1).eval()
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for block in (changing, same):
        nn.init.zeros_(block.conv2.weight)
        block.bn1.bias.data.fill_(0.3)
    assert isinstance(changing.convShortcut, nn.Conv2d)
    active = torch.relu(changing.bn1(x))
    assert torch.allclose(changing(x), changing.convShortcut(active))
    assert torch.equal(same(x), x)


def test_resnet_block_adds_before_the_activation() -> None:
    from core.models.resnet import BasicBlock

    block = BasicBlock(2, 2, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    block.bn2.bias.data.fill_(-0.5)
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).abs()
    assert torch.allclose(block(x), torch.relu(x - 0.5), atol=1e-6)


def test_weights_without_a_checkpoint_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (load_model("lenet-300-100", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.ip1.weight, again.ip1.weight)
    assert not torch.equal(first.ip1.weight, other.ip1.weight)
    assert not first.training


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet65'; did you mean 'resnet56'"):
        load_model("resnet65")


def test_recipes_are_by_model_and_dataset() -> None:
    assert recipe_for("lenet-300-100", "digits") != recipe_for("lenet-300-100", "fashion-mnist")
    assert recipe_for("lenet-300-100", "cifar10") == recipe_for("lenet-300-100", "fashion-mnist")
    assert recipe_for("my:net", "digits") == Recipe()


class TestTorchvision:
    def test_builds_without_weights(self) -> None:
        model = load_model("torchvision:resnet18", num_classes=7)
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)

    def test_googlenet_is_built_in_silence(self) -> None:
        assert load_model("torchvision:googlenet").training is False

    def test_unknown_name(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown torchvision model .resnet17.; did you mean .*resnet1"):
            load_model("torchvision:resnet17")

    def test_grey_images_are_refused(self) -> None:
        with pytest.raises(UsageError, match="takes images of 3 channels, not 1"):
            load_model("torchvision:resnet18", in_channels=1)


MY_NETS = """
import torch
loaded = True
class Net(torch.nn.Linear): pass
def both(num_classes, in_channels=3): return torch.nn.Linear(in_channels, num_classes)
def classes(num_classes=4): return torch.nn.Linear(1, num_classes)
def nothing(): return torch.nn.Linear(2, 2)
def wrong(): return "a network"
def failing(): raise ValueError("no luck")
number = 3
"""


class TestUserFactory:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "my_test_nets.py").write_text(MY_NETS)
        (tmp_path / "my_broken_nets.py").write_text("import not_installed_anywhere\n")
        (tmp_path / "my_raising_nets.py").write_text("1 / 0\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield
        sys.modules.pop("my_test_nets", None)

    @pytest.mark.parametrize(
        ("factory", "shape"), [("both", (5, 1)), ("classes", (5, 1)), ("nothing", (2, 2))], ids=str
    )
    def test_gets_what_its_signature_names(self, factory: str, shape: tuple[int, int]) -> None:
        model = load_model(f"my_test_nets:{factory}", num_classes=5, in_channels=1)
        assert isinstance(model, nn.Linear)
        assert (model.out_features, model.in_features) == shape

    def test_in_channels_is_left_to_the_factory_when_not_given(self) -> None:
        model = load_model("my_test_nets:both")
        assert isinstance(model, nn.Linear)
        assert model.in_features == 3

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("my_test_nets:", UsageError, "write package.module:factory"),
            ("my_test_nest:both", UsageError, "there is no module 'my_test_nest' in installed packages and the curr"),
            ("my_test_nets.sub:both", UsageError, "there is no module 'my_test_nets.sub'"),
            ("my_test_nets:bott", UnknownNameError, "attribute of module 'my_test_nets' 'bott'; did you mean 'both'"),
            ("my_test_nets:number", UsageError, "expected a function that returns a model, found int"),
            ("my_test_nets:wrong", ModelError, "the factory returned a str, not a torch.nn.Module"),
            ("my_test_nets:failing", ModelError, "the factory failed: ValueError: no luck"),
            ("my_broken_nets:both", ModelError, "importing 'my_broken_nets' failed: No module named 'not_inst"),
            ("my_raising_nets:both", ModelError, "importing 'my_raising_nets' failed: ZeroDivisionError"),
        ],
    )
    def test_refusals(self, name: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            load_model(name)


def test_the_registry_is_complete() -> None:
    assert MODELS.names() == ["lenet-300-100", "resnet20", "resnet56", "vgg-small", "vgg16", "wrn-40-4"]
