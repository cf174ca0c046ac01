"""A compressed network round-trips through one file, and nothing in a file is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core.compress import compress
from core.errors import CheckpointError, UsageError
from core.export import load, read_metadata, save
from core.models import load_model
from tests.core.nets import NETS, Plain, images, make


@pytest.mark.parametrize(("name", "size"), [("lenet-300-100", 28), ("resnet20", 32), ("wrn-40-4", 16)])
def test_registered_networks_need_nothing_but_the_file(tmp_path: Path, name: str, size: int) -> None:
    x = torch.randn(2, 1, size, size)
    result = compress(load_model(name, in_channels=1), x, ratio=0.5)
    again = load(save(result.model, tmp_path / "deep" / "net.safetensors", {"accuracy": 88.0}))
    assert torch.equal(again(x), result.model(x))
    assert read_metadata(tmp_path / "deep" / "net.safetensors") == {"accuracy": 88.0}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("name", NETS)
def test_other_networks_come_back_with_their_factory(tmp_path: Path, name: str) -> None:
    net, _ = make(name)
    result = compress(net, images(), ratio=0.5, decomposition="least-squares", calibration=images(16))
    path = save(result.model, tmp_path / "net.safetensors")
    assert torch.equal(load(path, factory=NETS[name][0])(images()), result.model(images()))
    with pytest.raises(UsageError, match=r"does not say how its network is built; pass factory="):
        load(path)


def test_a_compressed_network_can_be_compressed_again(tmp_path: Path) -> None:
    x = torch.randn(2, 1, 28, 28)
    once = load(save(compress(load_model("lenet-300-100"), x, ratio=0.5).model, tmp_path / "a"))
    twice = load(save(compress(once, x, ratio=0.5).model, tmp_path / "b"))
    assert twice.ip1.out_features == 75


def test_a_users_factory_named_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text("from tests.core.nets import Plain\n\ndef build():\n    return Plain()\n")
    monkeypatch.chdir(tmp_path)
    path = save(compress(load_model("mynets:build"), images()).model, tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match=r"'mynets:build', which is not run because a file says so"):
        load(path)
    assert isinstance(load(path, factory=Plain), Plain)


def test_shared_weights_are_kept_once(tmp_path: Path) -> None:
    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        net[2].weight = net[0].weight
        return net

    net = build()
    again = load(save(net, tmp_path / "net"), factory=build)
    assert again[0].weight is again[2].weight
    assert torch.equal(again(torch.ones(1, 4)), net(torch.ones(1, 4)))


def test_bad_files_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match=r"not a readable safetensors file"):
        load(tmp_path / "text")
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"holds plain weights"):
        load(tmp_path / "plain")
    net = Plain()
    net.conv1.weight.data.fill_(torch.inf)
    with pytest.raises(CheckpointError, match=r"'conv1.weight' has NaN or infinite"):
        load(save(net, tmp_path / "inf"), factory=Plain)
    with pytest.raises(CheckpointError, match=r"the network has no 'bn1.bias'; it was built by another factory"):
        load(save(Plain(), tmp_path / "other"), factory=lambda: nn.Linear(3, 3))
    with pytest.raises(UsageError, match=r"cannot be written.*choose another place"):
        save(net, tmp_path / "text" / "net")
