"""Formats that others read: loaded by processes that do not have this package, with the network's own outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sweep.export.formats
from core.compress import compress
from core.errors import UsageError
from core.models import load_model
from sweep.commands.compress import FORMS, chosen_form
from sweep.export.formats import ABOUT, WRITERS, FormatError, write_onnx, write_pt2

READ = """
import sys
sys.modules["core"] = sys.modules["sweep"] = None  # whoever imports them fails
import torch
images = torch.load(sys.argv[1], weights_only=True)
if sys.argv[2].endswith(".pt2"):
    model = torch.export.load(sys.argv[2]).module()
    found = [model(images), model(images[:1])]
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
    run = lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    found = [run(images), run(images[:1])]
torch.save([x.detach() for x in found], sys.argv[3])
"""


class Users(nn.Module):
    """A network of a user's own: two branches, a residual sum, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(8 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.out(torch.relu(self.norm(self.left(x) + self.right(x))).flatten(1))


NETWORKS = {
    "lenet-300-100": (1, 28),
    "vgg-small": (1, 28),
    "resnet20": (3, 16),
    "users": (1, 8),
    "torchvision:mobilenet_v2": (3, 32),
    "torchvision:densenet121": (3, 32),
    "torchvision:vit_b_16": (3, 224),
    "torchvision:swin_t": (3, 64),
}
LARGE = tuple(name for name in NETWORKS if name.startswith("torchvision:"))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NETWORKS])
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_others_read_them_and_compute_the_same(name: str, form: str, tmp_path: Path) -> None:
    channels, side = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Users() if name == "users" else load_model(name, num_classes=10, in_channels=channels)
    images = torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(1))
    small = compress(net.eval(), images[:1], ratio=0.5).model.eval()
    path = tmp_path / f"model.{form}"
    (write_pt2 if form == "pt2" else write_onnx)(small, images, path, {})
    torch.save(images, tmp_path / "images")
    command = [sys.executable, "-c", READ, str(tmp_path / "images"), str(path), str(tmp_path / "out")]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        for found, some in zip(torch.load(tmp_path / "out", weights_only=True), (images, images[:1]), strict=True):
            wanted = small(some)
            assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max().clamp_min(1))
    assert {path.name for path in tmp_path.iterdir()} == {"images", "out", path.name}


class Odd(nn.Module):
    """Takes another way for other values: no program says that."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(x)
        return found if float(x.sum()) > 0 else -found


@pytest.mark.parametrize("write", [write_pt2, write_onnx])
def test_what_cannot_be_traced_is_said_in_a_sentence(write: object, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^torch.export cannot trace it: [^\n]+$"):
        write(Odd().eval(), torch.randn(3, 4), tmp_path / "model", {})
    assert not list(tmp_path.iterdir())


def test_what_computes_something_else_is_not_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.export.formats, "TOLERANCE", -1.0)
    with pytest.raises(FormatError, match=r"read back from pt2, its outputs differ by"):
        write_pt2(nn.Linear(4, 2).eval(), torch.randn(3, 4), tmp_path / "model.pt2", {})
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"onnx and onnxscript: not installed, which pip install .*onnx.* does"):
        write_onnx(nn.Linear(4, 2).eval(), torch.randn(3, 4), tmp_path / "model.onnx", {})


def test_a_suffix_says_the_format() -> None:
    assert chosen_form(Path("a/small.onnx")) == "onnx"
    assert set(FORMS) == set(WRITERS)
    with pytest.raises(UsageError, match=r"--out small.pth: name the file .safetensors, .pt2, .onnx"):
        chosen_form(Path("small.pth"))


class Values(nn.Module):
    """Traced by torch; ONNX has no operator for what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x.view(-1, 3, 3))


def test_what_only_torch_expresses_is_said_in_a_sentence(tmp_path: Path) -> None:
    images = torch.randn(3, 1, 3, 3)
    with pytest.raises(FormatError, match=r"^ONNX cannot express it: No ONNX function found for [^\n]+$"):
        write_onnx(Values().eval(), images, tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())
    write_pt2(Values().eval(), images, tmp_path / "model.pt2", {})


def test_nobodys_images_are_in_a_file_and_what_made_the_network_is(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    net, about = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), {"key": "abc"}
    images = torch.full((3, 1, 2, 2), 0.777)
    for write, name in ((write_pt2, "model.pt2"), (write_onnx, "model.onnx")):
        write(net, images, tmp_path / name, about)
    extra = {ABOUT: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra[ABOUT]) == about
    assert program.example_inputs is not None
    assert not program.example_inputs[0][0].any()
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {ABOUT: about}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_an_exporter_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It prints the graph where it cannot trace one."""
    with pytest.raises(FormatError):
        write_pt2(Odd().eval(), torch.randn(3, 4), tmp_path / "model", {})
    assert capfd.readouterr() == ("", "")
