"""What a notebook has set for its own work (a default device, a type, a precision) changes no bit of what comes out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.calibration import calibration_images
from core.compress import compress, prepare
from core.export import load, save
from core.plain import plain_torch
from core.recovery import recover

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    # a tensor that is made on this device by mistake has no values, so it ends in an error, as one on a GPU would
    "default device": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "default type": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
}
WAYS: dict[str, dict[str, Any]] = {
    "data-free": {"criterion": "geometric-median", "decomposition": "gaussian"},
    "random": {"criterion": "random", "decomposition": "nmf"},
    "labels": {"criterion": "taylor", "decomposition": "gram", "options": {"bn_recalibrate": True}},
    "budget": {"criterion": "obs", "decomposition": "least-squares", "allocation": "budget"},
    "options": {"decomposition": "least-squares", "options": {"decoupling": 0.5, "rectified": 2}},
}


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def run_in_its_own() -> Callable[[str], None]:
    """Runs code in another process, for what would leave a mark on this one."""

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

    return run


@pytest.fixture
def setting(request: pytest.FixtureRequest) -> Any:
    """What sets and what unsets one of `SETTINGS`."""
    begin, end = SETTINGS[request.param]
    yield begin, end
    end()


ALL = pytest.mark.parametrize("setting", SETTINGS, indirect=True)


@ALL
@pytest.mark.parametrize("way", WAYS)
def test_compressing(setting: Any, way: str) -> None:
    model, seen, labels = net(), images(64), torch.arange(64) % 10
    words = {**WAYS[way], "ratio": 0.5, "calibration": seen, "labels": labels}
    wanted = compress(model, seen[:1], **words).model(seen)
    begin, end = setting
    begin()
    found = compress(prepare(model, seen[:1]), seen[:1], **words).model
    end()
    assert torch.equal(found(seen), wanted)


@ALL
def test_recovering_and_synthetic_images(setting: Any, tmp_path: Any) -> None:
    model, seen = net(), images(64)
    small = compress(model, seen[:1], ratio=0.5).model

    def made() -> tuple[nn.Module, Tensor]:
        drawn = calibration_images("noise", model=model, shape=(3, 12, 12), count=8, seed=1)
        return recover(small, model, seen, method="distill", steps=3, seed=0), drawn

    (recovered, drawn), (begin, end) = made(), setting
    begin()
    again, redrawn = made()
    end()
    assert torch.equal(again(seen), recovered(seen))
    assert torch.equal(redrawn, drawn)


@ALL
def test_reading_a_file(setting: Any, tmp_path: Any) -> None:
    seen = images(4)
    small = compress(net(), seen[:1], ratio=0.5).model
    save(small, tmp_path / "small.safetensors")
    begin, end = setting
    begin()
    read = load(tmp_path / "small.safetensors", factory=net)
    end()
    assert torch.equal(read(seen), small(seen))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_what_was_set_is_set_again(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    torch.set_default_dtype(torch.float64)

    def now() -> list[object]:
        backends: Any = torch.backends
        multiplied = backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision
        return [
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            *multiplied,
        ]

    try:
        before = now()
        with plain_torch():
            assert torch.get_default_dtype() == torch.float32
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert now() == before
        with pytest.raises(ZeroDivisionError), plain_torch():
            raise ZeroDivisionError
        assert now() == before
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)


def test_what_was_set_one_by_one_is_set_again(run_in_its_own: Any) -> None:
    run_in_its_own(
        "from torch import backends as b\n"
        "units = b.cudnn.conv, b.cudnn.rnn, b.cuda.matmul, b.mkldnn.matmul\n"
        "b.cudnn.conv.fp32_precision, b.mkldnn.matmul.fp32_precision = 'ieee', 'bf16'\n"
        "before = [unit.fp32_precision for unit in units]\n"
        "from core.plain import plain_torch\n"
        "with plain_torch():\n"
        "    assert {unit.fp32_precision for unit in units} == {'ieee'}\n"
        "assert [unit.fp32_precision for unit in units] == before\n"
    )
