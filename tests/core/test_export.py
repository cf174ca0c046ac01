"""A compressed network round-trips through one file, and nothing in a file is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
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


def lenet(path: Path) -> Path:
    """A compressed LeNet in a file."""
    return save(compress(load_model("lenet-300-100"), torch.randn(2, 1, 28, 28), ratio=0.5).model, path)


def damaged(path: Path, header: dict[str, str | None], tensors: dict[str, torch.Tensor | None]) -> Path:
    """The file with parts of its header and tensors replaced; None takes one away."""
    with safe_open(str(path), "pt") as file:
        texts, values = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    texts = {name: text for name, text in {**texts, **header}.items() if text is not None}
    save_file({name: value for name, value in {**values, **tensors}.items() if value is not None}, path, texts)
    return path


HEADERS: dict[str, tuple[dict[str, str | None], str]] = {
    "no origin": ({"origin": None}, r"its header has no 'origin'; the file is damaged, save the network once more"),
    "no shared": ({"shared": None}, r"its header has no 'shared'"),
    "no metadata": ({"metadata": None}, r"its header has no 'metadata'"),
    "not JSON": ({"origin": "{"}, r"'origin' in its header is not JSON"),
    "deep JSON": ({"metadata": "[" * 100_000}, r"'metadata' in its header is not JSON"),
    "a list": ({"origin": "[1, 2]"}, r"'origin' in its header does not say how to build a network"),
    "no name": ({"origin": '{"num_classes": 10, "in_channels": 1}'}, r"does not say how to build a network"),
    "no number": ({"origin": '{"name": "lenet-300-100", "num_classes": "x", "in_channels": 1}'}, r"does not say how"),
    "many classes": (
        {"origin": '{"name": "lenet-300-100", "num_classes": 1000000000000, "in_channels": null}'},
        r"num_classes = a huge number in its header fits no tensor",
    ),
    "many channels": (
        {"origin": '{"name": "lenet-300-100", "num_classes": 10, "in_channels": 5000}'},
        r"in_channels = 5000 in its header fits no tensor",
    ),
    "other classes": (
        {"origin": '{"name": "lenet-300-100", "num_classes": 12, "in_channels": null}'},
        r"its network has 10 outputs for 12 classes",
    ),
    "shared is a list": ({"shared": "[]"}, r"'shared' in its header is no table of names"),
    "shared numbers": ({"shared": '{"ip1.weight": 3}'}, r"'shared' in its header is no table of names"),
    "shared unknown": ({"shared": '{"ip9.weight": "ip1.weight"}'}, r"'ip9\.weight' and 'ip1\.weight' are one"),
    "shared with unknown": ({"shared": '{"ip1.weight": "ip9.weight"}'}, r"'ip1\.weight' and 'ip9\.weight' are one"),
    "metadata is a list": ({"metadata": "[]"}, r"'metadata' in its header is no table"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_damaged_headers(tmp_path: Path, name: str) -> None:
    header, message = HEADERS[name]
    path = damaged(lenet(tmp_path / "net"), header, {})
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_name_that_is_not_shared_in_the_network_is_no_excuse_for_a_missing_tensor(tmp_path: Path) -> None:
    path = damaged(lenet(tmp_path / "net"), {"shared": '{"ip3.bias": "ip2.bias"}'}, {"ip3.bias": None})
    with pytest.raises(CheckpointError, match=r"'ip3\.bias' and 'ip2\.bias' are one, and in the network they are not"):
        load(path)


TENSORS: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "float8": ({"ip2.bias": torch.ones(50).to(torch.float8_e4m3fn)}, r"'ip2\.bias' is float8_e4m3fn"),
    "whole": ({"ip2.bias": torch.ones(50, dtype=torch.int32)}, r"is int32 where the network has float32"),
    "complex": ({"ip2.bias": torch.ones(50, dtype=torch.complex64)}, r"is complex64 where the network has float32"),
    "axes": ({"ip2.bias": torch.ones(50, 1)}, r"'ip2\.bias' has 2 axes where the network has 1"),
    "larger": ({"ip2.bias": torch.ones(101)}, r"is \(101,\) where the original network has \(100,\), and compressing"),
    "empty but huge": ({"ip2.weight": torch.ones(0, 2**40)}, r"and compressing only removes"),
    "no fit": ({"ip2.weight": torch.ones(50, 149)}, r"its layers do not fit together \("),
    "outputs": (
        {"ip3.weight": torch.ones(9, 50), "ip3.bias": torch.ones(9)},
        r"its network has 9 outputs for 10 classes",
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_belong(tmp_path: Path, name: str) -> None:
    tensors, message = TENSORS[name]
    path = damaged(lenet(tmp_path / "net"), {}, tensors)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_header_may_not_ask_for_memory(tmp_path: Path) -> None:
    wide = {"ip1.bias": torch.zeros(4_000_000)}
    origin = '{"name": "resnet56", "num_classes": 4000000, "in_channels": 4000000}'
    with pytest.raises(CheckpointError, match=r"its header asks for a network of \d+ GB"):
        load(damaged(lenet(tmp_path / "net"), {"origin": origin}, wide))


def test_only_the_header_is_read_for_the_metadata(tmp_path: Path) -> None:
    path = damaged(lenet(tmp_path / "net"), {"metadata": '{"a": 1}'}, {"ip1.bias": torch.tensor([torch.nan])})
    assert read_metadata(path) == {"a": 1}
    with pytest.raises(CheckpointError, match=r"does not exist or is not a file"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**63, 2**64 - 1])
def test_headers_of_a_false_length(tmp_path: Path, length: int) -> None:
    path = lenet(tmp_path / "net")
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"is not a readable safetensors file"):
        load(path)


def test_a_network_that_made_its_own_outputs_is_read_again(tmp_path: Path) -> None:
    """As of data whose classes nobody knows, and of tasks."""
    net = load_model("lenet-300-100", num_classes=None)
    path = save(net, tmp_path / "net.safetensors")
    assert torch.equal(load(path).state_dict()["ip1.weight"], net.state_dict()["ip1.weight"])
    assert load(path, factory=lambda: load_model("lenet-300-100")).state_dict().keys() == net.state_dict().keys()
