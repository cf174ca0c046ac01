"""Every form of checkpoint loads; everything else is refused with one sentence."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.baselines import prepare_baseline
from core.checkpoint import load_checkpoint
from core.compress import compress
from core.config import BaselineConfig
from core.errors import CheckpointError
from core.export import load, save
from core.measure import accuracy_and_loss
from core.models import load_model

State = dict[str, Tensor]


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def save_safetensors(state: State, path: Path) -> None:
    save_file(state, path)


def save_plain(state: State, path: Path) -> None:
    torch.save(state, path)


def save_nested(state: State, path: Path) -> None:
    torch.save({"acc": 93.7, "epoch": 3, "state_dict": OrderedDict(state)}, path)


def save_legacy(state: State, path: Path) -> None:
    torch.save({"acc": 93.7, "state_dict": OrderedDict(state)}, path, _use_new_zipfile_serialization=False)


def save_data_parallel(state: State, path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in state.items()}, path)


def save_without_counters(state: State, path: Path) -> None:
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)


def save_half(state: State, path: Path) -> None:
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)


FORMS = [save_safetensors, save_plain, save_nested, save_legacy, save_data_parallel, save_without_counters]


@pytest.mark.parametrize("save", FORMS)
def test_forms_that_load(save: Callable[[State, Path], None], tmp_path: Path) -> None:
    source, target = net(1), net(2)
    path = tmp_path / "weights"  # the content decides, not the ending
    save(source.state_dict(), path)
    load_checkpoint(target, path)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_half_precision_is_widened(tmp_path: Path) -> None:
    source, target = net(1), net(2)
    save_half(source.state_dict(), tmp_path / "half.pt")
    load_checkpoint(target, tmp_path / "half.pt")
    assert target.state_dict()["0.weight"].dtype == torch.float32
    assert torch.allclose(target.state_dict()["0.weight"], source.state_dict()["0.weight"], atol=1e-3)


def test_a_model_whose_own_keys_start_with_module(tmp_path: Path) -> None:
    source, target = nn.ModuleDict({"module": net(1)}), nn.ModuleDict({"module": net(2)})
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_checkpoint(target, tmp_path / "w.pt")
    assert torch.equal(target["module"][0].weight, source["module"][0].weight)  # type: ignore[index]


class Evil:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


def test_a_pickle_with_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": net().state_dict(), "extra": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(net(), tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_a_whole_pickled_model_says_what_to_save_instead(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"holds more than plain weights.*save model.state_dict\(\) instead"):
        load_checkpoint(net(), tmp_path / "model.pt")


def changed(**changes: Tensor | None) -> State:
    state = net(1).state_dict()
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(**{"3.bias": None}), r"does not fit the model: it lacks '3\.bias'$"),
        (
            changed(**{"0.weight": None, "0.bias": None, "3.weight": None, "3.bias": None}),
            r"it lacks '0\.bias', '0\.weight', '3\.bias' and 1 more$",
        ),
        (changed(**{"3.wieght": torch.zeros(1)}), r"it has '3\.wieght', which .* \(did you mean '3\.weight'"),
        (changed(**{"3.weight": torch.zeros(3, 9)}), r"'3\.weight' is \(3, 9\) in the file, \(3, 8\) in the model"),
        (changed(**{"3.bias": torch.tensor([0, torch.nan, 0])}), r"'3\.bias' has NaN or infinite values"),
        (changed(**{"1.running_var": torch.tensor([1, torch.inf])}), r"'1\.running_var' has NaN or infinite values"),
    ],
)
def test_weights_that_do_not_fit(state: State, message: str, tmp_path: Path) -> None:
    model, before = net(2), net(2).state_dict()
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / "w.pt")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items()), "partly loaded"


def truncated(path: Path, save: Callable[[State, Path], None]) -> None:
    save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("save", [save_safetensors, save_plain, save_legacy])
def test_truncated_files(save: Callable[[State, Path], None], tmp_path: Path) -> None:
    truncated(tmp_path / "cut", save)
    with pytest.raises(CheckpointError, match=r"checkpoint .*cut is (a )?damaged"):
        load_checkpoint(net(), tmp_path / "cut")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"hello, world", b"PK\x03\x04 nothing", b"\x08" + b"\0" * 7 + b"{"]
)
def test_files_of_another_kind(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint .*other"):
        load_checkpoint(net(), tmp_path / "other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a state dict"),
        ({"state_dict": 3}, "'state_dict' is of type int"),
        ({"epoch": 3, "0.weight": torch.zeros(1)}, "'epoch' is of type int, not a tensor"),
        (torch.zeros(3), "holds a Tensor; expected a state dict"),
    ],
)
def test_torch_files_that_are_no_state_dict(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(net(), tmp_path / "w.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
        load_checkpoint(net(), tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is not a file; name the file"):
        load_checkpoint(net(), tmp_path)


def test_messages_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"PK\x03\x04" + b"x" * 50)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(net(), tmp_path / "bad")
    assert "\n" not in str(caught.value)


def test_published_lenet_has_the_published_accuracy(reference: Path, fashion_mnist: Any) -> None:
    model = load_model("lenet-300-100", reference / "lenet_300_100_fashion_mnist.safetensors")
    accuracy, _ = accuracy_and_loss(model, *fashion_mnist.inputs("test"))
    assert round(accuracy, 2) == 89.80


def deflated(content: bytes, path: Path) -> None:
    """Pack a torch file again, its entries squeezed."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_a_packed_file_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deflated(saved({"0.weight": torch.zeros(2_000_000)}), tmp_path / "w.pt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(CheckpointError, match=r"is packed and would unpack to 8 MB from 0\.0 MB; unpack it, or save"):
        load_checkpoint(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("size", [10**7, 10**12])
def test_memory_that_a_pickle_asks_for_without_filling_it(tmp_path: Path, new_format: bool, size: int) -> None:
    class Blank:
        def __reduce__(self) -> tuple[Any, ...]:
            return (bytearray, (size,))

    torch.save({"a": Blank()}, tmp_path / "w.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"holds a bytearray, so it is not opened"):
        load_checkpoint(net(), tmp_path / "w.pt")


ODD: dict[str, tuple[Callable[[], Tensor], str]] = {
    "sparse": (
        lambda: torch.eye(3, 8).to_sparse(),
        r"'3\.weight' is sparse \(sparse_coo\); save it after \.to_dense\(\)",
    ),
    "sparse rows": (lambda: torch.eye(3, 8).to_sparse_csr(), r"is sparse \(sparse_csr\)"),
    "quantised": (
        lambda: torch.quantize_per_tensor(torch.ones(3, 8), 0.1, 0, torch.qint8),
        r"is quantised; save the weights after \.dequantize\(\)",
    ),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(8)] * 3),
        r"is a nested tensor; save it as",
    ),
    "float8": (
        lambda: torch.ones(3, 8).to(torch.float8_e4m3fn),
        r"is float8_e4m3fn, whose scale",
    ),
    "without data": (
        lambda: torch.ones(3, 8, device="meta"),
        r"is on the device 'meta' and has no",
    ),
    "complex": (lambda: torch.ones(3, 8, dtype=torch.complex64), r"is complex64 in the file, float32 in the model"),
    "whole": (lambda: torch.ones(3, 8, dtype=torch.int64), r"is int64 in the file, float32 in the model"),
    "too large": (
        lambda: torch.full((3, 8), 1e300, dtype=torch.float64),
        r"too large for the model's float32",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_tensors_that_are_no_plain_numbers(name: str, tmp_path: Path) -> None:
    make, message = ODD[name]
    torch.save(changed(**{"3.weight": make()}), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(net(), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.int64, torch.complex64])
def test_safetensors_of_other_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file(changed(**{"3.weight": torch.ones(3, 8).to(dtype)}), tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"checkpoint .*w: '3\.weight' is "):
        load_checkpoint(net(), tmp_path / "w")


def test_keys_that_are_no_names(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"has a key of type int; expected a state dict"):
        load_checkpoint(net(), tmp_path / "w.pt")
    torch.save(changed(**{"x" * 10_000: torch.zeros(1)}), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"it has 'x+…x+', which the model does not know") as caught:
        load_checkpoint(net(), tmp_path / "w.pt")
    assert len(str(caught.value)) < 1000


def test_a_counter_may_be_any_number(tmp_path: Path) -> None:
    torch.save(changed(**{"1.num_batches_tracked": torch.tensor(3.0)}), tmp_path / "w.pt")
    model = net()
    load_checkpoint(model, tmp_path / "w.pt")
    assert model.state_dict()["1.num_batches_tracked"].item() == 3


def test_a_name_that_no_system_allows() -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read: File name too long"):
        load_checkpoint(net(), "x" * 5000)


def test_an_archive_behind_an_old_pickle_does_not_hide_it(tmp_path: Path) -> None:
    """Torch goes by the first bytes, and so must what looks before it."""

    class Blank:
        def __reduce__(self) -> tuple[Any, ...]:
            return (bytearray, (10**12,))

    old = io.BytesIO()
    torch.save({"a": Blank()}, old, _use_new_zipfile_serialization=False)
    (tmp_path / "w.pt").write_bytes(old.getvalue() + saved({}))
    with pytest.raises(CheckpointError, match=r"holds a bytearray, so it is not opened"):
        load_checkpoint(net(), tmp_path / "w.pt")


def test_an_archive_whose_stream_is_damaged(tmp_path: Path) -> None:
    deflated(saved({"a": torch.zeros(2)}), tmp_path / "w.pt")
    content = bytearray((tmp_path / "w.pt").read_bytes())
    start = content.index(b"data.pkl") + len("data.pkl")
    content[start : start + 8] = b"\xff" * 8
    for offset in range(start, start + 40):
        (tmp_path / "w.pt").write_bytes(bytes(content[:offset]) + b"\x05" + bytes(content[offset + 1 :]))
        with pytest.raises(CheckpointError, match=r"checkpoint .*w\.pt "):
            load_checkpoint(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("table", ["state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod."])
def test_what_trainings_save_is_loaded(table: str, prefix: str, tmp_path: Path) -> None:
    source, model = load_model("lenet-300-100", seed=1), load_model("lenet-300-100")
    optimiser = torch.optim.Adam(source.parameters())
    weights = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 3, table: weights, "optimizer_state_dict": optimiser.state_dict()}, tmp_path / "net.pt")
    load_checkpoint(model, tmp_path / "net.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))


def test_a_table_of_no_weights_says_what_is_expected(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": {}}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"'epoch' is of type int, .*or \{\"model_state_dict\": …\}"):
        load_checkpoint(load_model("lenet-300-100"), tmp_path / "net.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="it lacks"):
        load_checkpoint(load_model("lenet-300-100"), tmp_path / "empty.pt")


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten gigabytes of nothing behind a header: neither a hash nor a reader gets to see them."""
    path = tmp_path / "net.pt"
    torch.save(load_model("lenet-300-100").state_dict(), path)
    with path.open("r+b") as file:
        file.truncate(10 * 2**30)
    monkeypatch.setattr("core.checkpoint.read_weights", lambda _: pytest.fail("it was read"))
    monkeypatch.setattr("core.snapshots.file_digest", lambda _: pytest.fail("it was hashed"))
    sentence = r"has 10.0 GB, and the network's weights take 1.0 MB; save model.state_dict\(\) with torch.save"
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(load_model("lenet-300-100"), path)
    config = BaselineConfig(model="lenet-300-100", dataset="digits", checkpoint=path)
    with pytest.raises(CheckpointError, match=sentence):
        prepare_baseline(config, tmp_path / "cache")


def test_an_exported_program_is_no_checkpoint(tmp_path: Path) -> None:
    model = load_model("lenet-300-100")
    torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 28, 28),)), tmp_path / "net.pt2")
    with pytest.raises(CheckpointError, match=r"net.pt2 is an exported program \(.pt2\) and no weights"):
        load_checkpoint(model, tmp_path / "net.pt2")


class TestCompressed:
    """A file of `core.export` is the network that it holds, to be compressed further."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        images = torch.zeros(2, 1, 28, 28)
        return save(compress(load_model("lenet-300-100"), images, ratio=0.5).model, tmp_path / "small.safetensors")

    def test_it_is_the_original_of_a_further_compression(self, small: Path, tmp_path: Path) -> None:
        config = BaselineConfig(model="lenet-300-100", dataset="digits", checkpoint=small)
        first, again = (prepare_baseline(config, tmp_path / "cache") for _ in range(2))
        assert (first.origin, again.origin) == ("checkpoint", "cache")
        wanted = load(small).state_dict()
        for found in (first.model, again.model):
            assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())
        smaller = compress(again.model, torch.zeros(2, 1, 28, 28), ratio=0.5).model
        back = load(save(smaller, tmp_path / "smaller.safetensors"))
        assert back.state_dict()["ip1.weight"].shape == (75, 784)

    def test_another_model_is_named(self, small: Path, tmp_path: Path) -> None:
        config = BaselineConfig(model="vgg-small", dataset="digits", checkpoint=small)
        with pytest.raises(CheckpointError, match="was compressed from 'lenet-300-100', not from 'vgg-small'"):
            prepare_baseline(config, tmp_path / "cache")

    def test_it_does_not_fill_a_whole_network(self, small: Path) -> None:
        with pytest.raises(CheckpointError, match=r"holds a compressed network; core.export.load brings it back"):
            load_checkpoint(load_model("lenet-300-100"), small)


def test_no_near_name_is_made_up(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1), "ip1.weigth": torch.zeros(1)}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"which the model does not know \(known: ip1.bias, ip1.weight"):
        load_checkpoint(load_model("lenet-300-100"), tmp_path / "net.pt")
    torch.save({"ip1.weigth": torch.zeros(1)}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"\(did you mean 'ip1.weight'"):
        load_checkpoint(load_model("lenet-300-100"), tmp_path / "net.pt")
