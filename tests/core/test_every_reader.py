"""Every kind of layer that reads channels is refitted to a float64 oracle's solution, or left alone with a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import Result, compress, prepare
from core.evidence import InputStatistics
from core.graph import Layer
from core.seen import seen_moments
from core.windows import FAITHFUL, Window, as_matrix, as_weight, by_group, is_faithful, patches
from tests.core.nets import Misnamed

Call = Callable[[Any, Tensor], Sequence[Tensor]]


class SamePadding(nn.Conv2d):
    """Pads as TensorFlow does: more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class OneReader(nn.Module):
    """A convolution whose channels one layer reads, as ``call`` says; its outputs are the network's."""

    def __init__(self, axes: int, reader: nn.Module, call: Call) -> None:
        super().__init__()
        self.stem = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes](3, 6, 1)
        self.reader: Any = reader
        self.call = call

    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.stem(x))

    def forward(self, x: Tensor) -> Any:
        found = self.call(self.reader, self.hidden(x))
        return found[0] if len(found) == 1 else tuple(found)


class Held(nn.Module):
    """A weight and a bias without a layer of their own."""

    def __init__(self, *shape: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(*shape) / 4), nn.Parameter(torch.randn(out)) if out else None


def once(reader: Any, h: Tensor) -> Sequence[Tensor]:
    return (reader(h),)


KINDS: dict[str, Callable[[], OneReader]] = {
    "convolution": lambda: OneReader(2, nn.Conv2d(6, 2, 3, stride=2, padding=1), once),
    "linear": lambda: OneReader(2, nn.Linear(6, 3), lambda r, h: (r(h.mean((2, 3))),)),
    "flattened": lambda: OneReader(1, nn.Linear(30, 3), lambda r, h: (r(h.flatten(1)),)),
    "transposed 1d": lambda: OneReader(1, nn.ConvTranspose1d(6, 2, 3, stride=2, padding=1, output_padding=1), once),
    "transposed 2d": lambda: OneReader(
        2, nn.ConvTranspose2d(6, 2, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(0, 2), dilation=(2, 1)), once
    ),
    "transposed 3d": lambda: OneReader(3, nn.ConvTranspose3d(6, 2, 2, stride=2), once),
    "transposed, much padding": lambda: OneReader(2, nn.ConvTranspose2d(6, 2, 2, stride=2, padding=3), once),
    "transposed, of a size": lambda: OneReader(
        2, nn.ConvTranspose2d(6, 2, 3, stride=2), lambda r, h: (r(h, output_size=[12, 11]),)
    ),
    "transposed, unbiased": lambda: OneReader(2, nn.ConvTranspose2d(6, 2, 3, stride=2, bias=False), once),
    "reflect": lambda: OneReader(2, nn.Conv2d(6, 2, 3, padding=1, padding_mode="reflect"), once),
    "circular": lambda: OneReader(1, nn.Conv1d(6, 2, 3, padding=2, padding_mode="circular"), once),
    "replicate": lambda: OneReader(2, nn.Conv2d(6, 2, 3, padding="same", dilation=2, padding_mode="replicate"), once),
    "own padding": lambda: OneReader(2, SamePadding(6, 2, 3, stride=2), once),
    "function": lambda: OneReader(
        2, Held(2, 6, 3, 3, out=2), lambda r, h: (F.conv2d(h, r.weight, r.bias, 2, (1, 0)),)
    ),
    "transposed function": lambda: OneReader(
        2, Held(6, 2, 2, 2, out=2), lambda r, h: (F.conv_transpose2d(h, r.weight, r.bias, 2, 1, dilation=2),)
    ),
    "function without bias": lambda: OneReader(2, Held(2, 6, 2, 2, out=0), lambda r, h: (F.conv2d(h, r.weight),)),
    "linear function": lambda: OneReader(
        2, Held(3, 6, out=3), lambda r, h: (F.linear(h.mean((2, 3)), r.weight, bias=r.bias),)
    ),
    "product": lambda: OneReader(2, Held(6, 3, out=0), lambda r, h: (h.mean((2, 3)) @ r.weight,)),
    "used twice": lambda: OneReader(2, nn.Conv2d(6, 2, 3), lambda r, h: (r(h), r(torch.tanh(h)))),
    "transposed, used twice": lambda: OneReader(
        1, nn.ConvTranspose1d(6, 2, 3), lambda r, h: (r(h), r(torch.tanh(h)))
    ),
}  # fmt: skip


def made(kind: str) -> tuple[OneReader, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = KINDS[kind]().double().eval()
        return net, torch.randn(6, 3, *[5] * (net.stem.weight.dim() - 2)).double()


def rows_of(outputs: Any) -> Tensor:
    """All that a reader gives, (rows, out)."""
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.cat([part.movedim(1, -1).flatten(0, -2) for part in parts])


def of_first(design: Tensor, kind: str) -> Tensor:
    """What the first output reads, (rows, in·k), among derivatives (rows, *shape of the weight)."""
    return design.select(2 if "transposed" in kind or kind == "product" else 1, 0).flatten(1)


def oracle(kind: str, original: OneReader, prior: OneReader, x: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Minimise ‖A(v, b) − T‖²/rows + a‖v − v_K‖², A by automatic differentiation, as one dense problem."""
    weight, bias = prior.reader.weight.detach(), prior.reader.bias

    def outputs(v: Tensor) -> Tensor:
        values = {"reader.weight": v} if bias is None else {"reader.weight": v, "reader.bias": torch.zeros_like(bias)}
        return rows_of(torch.func.functional_call(prior, values, (x,)))

    wanted = rows_of(original(x)).detach()
    derivatives = torch.func.jacrev(outputs)(torch.zeros_like(weight)).detach()
    seen, design = of_first(derivatives[:, 0], kind), derivatives.flatten(2)  # (rows, out, numbers of v)
    rows, out, size = design.shape
    unbiased = "without bias" in kind or kind == "product"
    spread = seen.square().mean(0) if unbiased else (seen - seen.mean(0)).square().mean(0)
    ridge = damping * (1 + 600 * seen.shape[1] / rows) * spread.mean()
    constants = torch.zeros(rows * out, 0) if unbiased else torch.eye(out).repeat(rows, 1)
    top = torch.cat([design.flatten(0, 1), constants.double()], 1) / rows**0.5
    left = torch.cat([top, ridge.sqrt() * torch.eye(size, top.shape[1]).double()])
    right = torch.cat([wanted.flatten() / rows**0.5, ridge.sqrt() * weight.flatten()])
    found = torch.from_numpy(np.linalg.lstsq(left.numpy(), right.numpy(), rcond=None)[0])
    return found[:size].view_as(weight), found[size:]


OPTIONS = {"mixed_to": 0, "damping": 2e-3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_gets_the_oracles_weights(kind: str) -> None:
    net, x = made(kind)
    prior: Any = compress(net, x, ratio=0.5, options={"threshold": 0.45}).model
    found = compress(net, x, ratio=0.5, decomposition="least-squares", options=OPTIONS, calibration=x)
    reader: Any = found.model.get_submodule("reader")
    weight, bias = oracle(kind, net, prior, x, damping=OPTIONS["damping"])
    assert found.sites[0].note == ""
    assert not torch.allclose(reader.weight, prior.reader.weight, rtol=1e-3)
    torch.testing.assert_close(reader.weight.detach(), weight, rtol=1e-5, atol=1e-7)
    if reader.bias is not None:
        torch.testing.assert_close(reader.bias.detach(), bias, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_criteria_see_what_a_reader_reads(kind: str) -> None:
    """Its second moments are those of the derivatives of what it gives by its weights."""
    net, x = made(kind)
    weight = net.reader.weight.detach()

    def first(v: Tensor) -> Tensor:
        return rows_of(torch.func.functional_call(net, {"reader.weight": v}, (x,)))[:, 0]

    design = of_first(torch.func.jacrev(first)(weight).detach(), kind)
    channels = find_channels(net, x)
    (chosen,) = channels.sets
    moments = InputStatistics(channels, x).of(chosen.consumers[0], chosen.consumers)
    assert moments.count == len(design)
    torch.testing.assert_close(moments.second[0], design.T @ design / len(design))
    result = compress(net, x, ratio=0.5, criterion="obs", calibration=x)
    assert result.sites[0].note == ""


@pytest.mark.parametrize("method", ["gram", "least-squares"])
def test_channels_that_a_transposed_convolution_reads_have_their_own_moments(method: str) -> None:
    """Kernel and stride are equal: each tap meets each input once, and a combination of channels costs nothing."""
    net, x = made("transposed 3d")
    channels = find_channels(net, x)
    (chosen,) = channels.sets
    (moments,) = seen_moments(channels, chosen, InputStatistics(channels, x)).values()
    assert moments is not None
    rows = net.hidden(x).detach().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.second, rows.T @ rows / len(rows))
    stem: Any = net.stem
    stem.weight.data.abs_()
    stem.bias.data.zero_()
    x = x.abs()  # the ReLU does nothing: six linear functions of three inputs
    options = {"affine": True, "damping": 1e-6} if method == "gram" else {"damping": 1e-9}
    found = compress(net, x, ratio=0.5, decomposition=method, options=options, calibration=x)
    assert max(found.sites[0].reconstruction.values()) < 1e-4


GROUPED = [
    nn.ConvTranspose1d(6, 4, 3, stride=2, groups=2),
    nn.ConvTranspose2d(6, 6, (3, 1), stride=(1, 2), padding=1, output_padding=(0, 1), groups=3),
    nn.ConvTranspose3d(4, 4, 2, stride=2, groups=4),
    nn.Conv2d(6, 4, 3, groups=2, padding=1, padding_mode="reflect"),
]


@pytest.mark.parametrize("layer", GROUPED)
def test_rows_times_weight_are_what_a_grouped_layer_gives(layer: Any) -> None:
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    node = Layer("x", "conv-transpose" if transposed else "conv", "x.weight", "x.bias", layer.groups)
    x = torch.randn(3, layer.in_channels, *[6] * (layer.weight.dim() - 2))
    around = () if transposed else tuple(layer._reversed_padding_repeated_twice)
    padding, mode = (layer.padding, "constant") if transposed else (0, "reflect")
    window = Window(layer.kernel_size, layer.stride, padding, layer.dilation, around, mode, transposed)
    matrix = as_matrix(layer.weight.detach(), node, layer.groups)
    assert torch.equal(as_weight(matrix, node, layer.weight.shape), layer.weight)
    out = layer(x).detach()
    ((rows, outputs),) = patches(window, x, out)
    given = (by_group(rows, layer.groups) @ matrix.mT).transpose(0, 1).flatten(1) + layer.bias
    torch.testing.assert_close(given.detach(), outputs, rtol=1e-4, atol=1e-5)
    assert is_faithful(window, x, matrix, layer.bias.detach(), out)
    assert not is_faithful(window, x, matrix * (1 + 2 * FAITHFUL), layer.bias.detach(), out)


class Again(nn.Module):
    """A module that reads what it has written itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.loop, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.loop(F.relu(self.loop(F.relu(self.stem(x)))))))


class Towers(nn.Module):
    """Two inputs through the same layers: each of these is needed by both before the next one is refitted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3), nn.Linear(24, 4)
        self.norm = nn.BatchNorm2d(12)

    def tower(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.second(F.relu(self.first(x), inplace=True)))).mean((2, 3))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.tower(a), self.tower(b)], 1))


def lost(net: nn.Module, result: Result, x: tuple[Tensor, ...]) -> float:
    with torch.no_grad():
        return float((net(*x) - result.model(*x)).square().sum())


def test_a_layer_that_reads_what_it_has_written_keeps_its_weights_and_says_so() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Again().eval(), torch.randn(32, 3, 5, 5)
    found = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    (chosen,) = found.sites
    why = "is used several times, and reads what it has written itself: it keeps the merged weights"
    assert chosen.note == f"loop {why}"
    merged: Any = compress(net, x, ratio=0.5, options={"threshold": 0.45}).model
    model: Any = found.model
    assert torch.equal(model.loop.weight, merged.loop.weight)
    assert not torch.equal(model.head.weight, merged.head.weight)


def test_a_layer_that_is_not_what_its_class_says_keeps_its_weights_and_says_so() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), Misnamed(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
        x = torch.randn(32, 3, 7, 7)
    found = compress(net, x, ratio=0.5, criterion="obs", decomposition="least-squares", calibration=x)
    assert "the criterion cannot look at what 2 reads: it is not what its weight says" in found.sites[0].note
    assert "2 does not compute what its weight says: it keeps the merged weights" in found.sites[0].note
    assert found.sites[1].note == ""


def test_both_towers_of_a_shared_module_are_fitted_together() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Towers().eval()
        x = torch.randn(64, 3, 6, 6), 2 * torch.randn(64, 3, 6, 6) + 1
    found = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    prior = compress(net, x, ratio=0.5, options={"threshold": 0.45})
    assert all(site.note == "" for site in found.sites)
    assert lost(net, found, x) < 0.3 * lost(net, prior, x)


def test_two_inputs_are_looked_at_by_criteria() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Towers().eval(), (torch.randn(16, 3, 6, 6), torch.randn(16, 3, 6, 6))
    found = compress(prepare(net, x), x, ratio=0.5, criterion="obs", decomposition="least-squares", calibration=x)
    assert all(site.note == "" for site in found.sites)


@pytest.mark.parametrize("kind", KINDS)
def test_dead_and_constant_channels_and_two_images_give_finite_weights(kind: str) -> None:
    net, x = made(kind)
    stem: Any = net.stem
    stem.weight.data[:3] = 0.0
    stem.bias.data[:3] = torch.tensor([-5.0, 3.7, 0.0])
    for ratio in (0.2, 0.5, 0.9):
        found = compress(net, x, ratio=ratio, criterion="obs", decomposition="least-squares", calibration=x[:2])
        assert all(bool(p.isfinite().all()) for p in found.model.parameters())
        assert all(float(p.abs().max()) < 1e3 for p in found.model.parameters())
        assert all(value >= 0 for site in found.sites for value in site.reconstruction.values())
