"""Accuracy against a loop, MACs against a count by hand, and memory that must not be written to."""

from __future__ import annotations

import math
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.measure import accuracy_and_loss, evaluate, fastest_layout, latency_ms, sizes
from core.models import MODELS, load_model


class Table(nn.Module):
    """Looks the logits up: the first pixel says which row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x[:, 0, 0, 0].long()]


class Viewing(nn.Module):
    """A convolution whose output goes through ``view``, which channels-last memory does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(x.size(0), -1))


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 1, 2, 2).contiguous()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_accuracy_and_loss_agree_with_a_loop(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 4, generator=generator)
    labels = torch.randint(0, 4, (7,), generator=generator)
    right, loss = 0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += row.index(max(row)) == label
        loss -= row[label] - math.log(sum(math.exp(v) for v in row))
    accuracy, mean_loss = accuracy_and_loss(Table(logits), numbered(7), labels, batch_size)
    assert accuracy == pytest.approx(100 * right / 7)
    assert mean_loss == pytest.approx(loss / 7, rel=1e-6)


def test_nan_logits_give_a_nan_loss() -> None:
    _, loss = accuracy_and_loss(Table(torch.full((2, 3), torch.nan)), numbered(2), torch.tensor([0, 1]))
    assert math.isnan(loss)


def test_read_only_images_survive_a_network_that_works_in_place() -> None:
    count = 4 * 3 * 8 * 8
    with mmap.mmap(-1, count * 4) as memory:
        images = torch.frombuffer(memory, dtype=torch.float32).view(4, 3, 8, 8)
        images.copy_(torch.linspace(-1, 1, count).view_as(images))
        before = images.clone()
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
        accuracy_and_loss(model, images, torch.zeros(4, dtype=torch.long), batch_size=2)
        assert torch.equal(images, before)
        del images


def test_layout_is_channels_last_only_where_the_network_takes_it() -> None:
    image = torch.zeros(1, 3, 8, 8)
    assert fastest_layout(nn.Conv2d(3, 4, 3), image) is torch.channels_last
    with torch.inference_mode():
        assert fastest_layout(Viewing(), image) is torch.contiguous_format
    accuracy, _ = accuracy_and_loss(Viewing().eval(), torch.zeros(5, 3, 8, 8), torch.zeros(5, dtype=torch.long), 2)
    assert accuracy in (0.0, 100.0)


def macs_by_hand(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates from each layer's weight and the number of places it is applied to."""
    total = 0

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            places = out.shape[-1] * out.shape[-2]
            total += places * kernel * (module.in_channels // module.groups) * module.out_channels
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features

    handles = [module.register_forward_hook(count) for module in model.modules()]
    model(example)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("name", MODELS.names())
def test_macs_agree_with_a_count_by_hand(name: str) -> None:
    model = load_model(name, in_channels=1)
    example = torch.zeros(1, 1, 28, 28)
    assert sizes(model, example)["macs"] == macs_by_hand(model, example)


def test_macs_of_grouped_and_batched_layers() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    depthwise, pointwise, linear = 8 * 9 * 4, 8 * 4 * 4, 16 * 2
    assert sizes(model.eval(), torch.zeros(3, 8, 4, 4))["macs"] == depthwise + pointwise + linear


def test_params_and_bytes() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)).eval()
    found = sizes(model, torch.zeros(1, 2, 4, 4))
    assert found["params"] == 6 + 3 + 3
    assert found["bytes"] == 4 * (6 + 3 + 3) + 4 * (3 + 3) + 8  # weights, running mean and variance, the int64 counter


def test_sizes_also_counts_under_inference_mode() -> None:
    with torch.inference_mode():
        assert sizes(nn.Linear(5, 3), torch.zeros(1, 5))["macs"] == 15


def test_latency_is_the_median_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 100, 200, 201, 300, 302, 400, 409])  # start, end of four forwards: 100, 1, 2, 9 seconds
    monkeypatch.setattr("core.measure.time.perf_counter", lambda: next(clock))
    assert latency_ms(nn.Identity(), torch.zeros(1, 2), repeats=3) == 2000


def test_macs_are_those_of_torchs_own_counter():
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten())
    attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    for network, example in ((model, torch.randn(2, 3, 9, 9)), (attention, torch.randn(2, 5, 16))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(example)
        assert sizes(network, example)["macs"] == counter.get_total_flops() / 2 / len(example) > 0


def test_counting_loads_neither_torchs_compiler_nor_triton():
    """They would cost every worker 155 MB and more than a second; who wants them later can have them."""
    program = (
        "import sys, torch; from core.measure import sizes; sizes(torch.nn.Linear(3, 2), torch.zeros(1, 3));"
        "assert not {'torch._dynamo', 'triton', 'triton.runtime.jit'} & sys.modules.keys();"
        "import importlib.util as u; u.find_spec('triton') and __import__('triton.runtime.jit')"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": root}, timeout=120)
    assert done.returncode == 0


class Small(nn.Module):
    """Has memory for three images."""

    def __init__(self, room: int = 3) -> None:
        super().__init__()
        self.room, self.seen = room, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return x.flatten(1)


def test_batches_are_halved_until_they_fit() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    labels = x.argmax(1)
    small = Small()
    found, wanted = (evaluate(net, x, labels, batch_size=10) for net in (small, nn.Identity()))
    assert found.right == wanted.right
    assert found.loss == pytest.approx(wanted.loss)
    assert found.accuracy == 100
    assert sum(size > 3 for size in small.seen) == 2, "10 and 5, and then never again"
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Small(room=0), x, labels, batch_size=10)
