"""What used to be quietly wrong: networks whose operations mix, reorder, count or measure channels.

Each network is cut, and the cut one compared with the original whose consumers do not see the removed channels: their
inputs are masked by hooks, which know nothing of how the network was traced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import Result, compress


class Net(nn.Module):
    """conv1 - bn1 - relu - conv2 - relu - [the operation] - conv3 - head, with 16 channels everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3)
        self.conv3, self.head = nn.Conv2d(16, 8, 3), nn.Linear(8, 5)
        self.op = self.make()

    def make(self) -> Any:
        return None

    def operate(self, x: Tensor, y: Tensor) -> Any:
        raise TypeError("a subclass says what happens here")

    def forward(self, images: Tensor) -> Any:
        x = F.relu(self.bn1(self.conv1(images)))
        z = self.operate(x, F.relu(self.conv2(x)))
        extra = ()
        if isinstance(z, tuple):
            z, *extra = z
        out = self.head(F.relu(self.conv3(z)).mean((2, 3)))
        return (out, *extra) if extra else out


def net(operate: Callable[[Net, Tensor, Tensor], Any], make: Callable[[], Any] = lambda: None) -> type[Net]:
    return type("Made", (Net,), {"operate": operate, "make": lambda self: make()})


def unused(self: Any, x: Tensor, y: Tensor) -> Tensor:
    return y


def literal_norm(self: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.layer_norm(y.permute(0, 2, 3, 1), (16,)).permute(0, 3, 1, 2)


def literal_groups(self: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.conv2d(y, self.op.weight, None, groups=16)


def unfolded(self: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.fold(self.op(y), y.shape[2:], 1)


CASES: dict[str, type[Net]] = {
    "ChannelShuffle": net(lambda s, x, y: s.op(y), lambda: nn.ChannelShuffle(4)),
    "F.channel_shuffle": net(lambda s, x, y: F.channel_shuffle(y, 2)),
    "native_channel_shuffle": net(lambda s, x, y: torch.native_channel_shuffle(y, 4)),
    "clamp(x, y)": net(lambda s, x, y: y.clamp(x[:, :, 1:-1, 1:-1] * 0.1)),
    "clamp(x, max=y)": net(lambda s, x, y: torch.clamp(y, max=x[:, :, 1:-1, 1:-1])),
    "pow": net(lambda s, x, y: (1 + y).pow(x[:, :, 1:-1, 1:-1])),
    "negative channel pad": net(lambda s, x, y: F.pad(y, (0, 0, 0, 0, -2, 2))),
    "channel pad": net(lambda s, x, y: F.pad(y, (0, 0, 0, 0, 3, 0))[:, :16]),
    "mT": net(lambda s, x, y: y.mT),
    "data": net(lambda s, x, y: y.data * 2),
    "== leaves": net(lambda s, x, y: (y, y == 0)),
    "// leaves": net(lambda s, x, y: (y, y // 2)),
    "% leaves": net(lambda s, x, y: (y, y % 2)),
    "count as number": net(lambda s, x, y: y * y.shape[1] ** -0.5),
    "numel as number": net(lambda s, x, y: y * (100.0 / y.numel())),
    "count leaves": net(lambda s, x, y: (y, y.shape[1])),
    "weight as data": net(lambda s, x, y: y + s.conv1.weight.sum((1, 2, 3)).view(1, 16, 1, 1)),
    "weight leaves": net(lambda s, x, y: (y, s.conv2.weight)),
    "bias as data": net(lambda s, x, y: y * s.conv2.bias.view(1, -1, 1, 1)),
    "a bias as a gate": net(lambda s, x, y: y / (1 + F.relu(s.conv1.bias)[None, :, None, None])),
    "literal layer_norm": net(literal_norm),
    "literal groups": net(literal_groups, lambda: nn.Conv2d(16, 16, 3, groups=16)),
    "pruned": net(lambda s, x, y: s.op(y), lambda: pruned(nn.Conv2d(16, 16, 1))),
    "weight norm": net(lambda s, x, y: s.op(y), lambda: old_weight_norm(nn.Conv2d(16, 16, 1))),
    "parametrized": net(lambda s, x, y: s.op(y), lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1))),
    "spectral norm": net(lambda s, x, y: s.op(y), lambda: nn.utils.spectral_norm(nn.Conv2d(16, 16, 1))),
    "nn.Unfold": net(unfolded, lambda: nn.Unfold(1)),
    "plain tensor": net(lambda s, x, y: y * s.op, lambda: torch.linspace(1, 2, 16).view(1, 16, 1, 1)),
    "a hook that rolls": net(lambda s, x, y: s.op(y), lambda: rolling(nn.ReLU())),
    "softmax": net(lambda s, x, y: y.softmax(1)),
    "cumsum": net(lambda s, x, y: y.cumsum(1)),
    "roll": net(lambda s, x, y: y.roll(1, 1)),
    "group norm": net(lambda s, x, y: s.op(y), lambda: nn.GroupNorm(4, 16)),
    "rms norm": net(lambda s, x, y: s.op(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), lambda: nn.RMSNorm(16)),
    "pixel unshuffle": net(lambda s, x, y: F.pixel_shuffle(F.pixel_unshuffle(y, 2), 2)),
    "alpha": net(lambda s, x, y: torch.sub(y, x[:, :, 1:-1, 1:-1], alpha=0.3)),
    "nothing": net(unused),
}  # fmt: skip


def pruned(layer: nn.Module) -> nn.Module:
    from torch.nn.utils import prune

    return prune.l1_unstructured(layer, "weight", 0.3)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


def rolling(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, given, out: out.roll(1, 1))
    return layer


def build(case: str) -> tuple[Net, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CASES[case]().double().eval()
        if isinstance(model.op, Tensor):
            model.op = model.op.double()
        model.bn1.running_mean.uniform_(-0.3, 0.3), model.bn1.running_var.uniform_(0.5, 2)
        model.bn1.weight.data.uniform_(0.5, 2), model.bn1.bias.data.uniform_(-0.5, 0.5)
        return model, torch.randn(2, 3, 8, 8).double()


@contextlib.contextmanager
def masked(model: nn.Module, result: Result) -> Iterator[None]:
    """The consumers of every set see zeros where a channel was removed."""
    hooks = []
    for site in result.sites:
        mask = torch.zeros(site.size, dtype=torch.float64)
        mask[list(site.kept)] = 1
        for name in site.consumers:
            read = model.get_submodule(name).weight.shape[1]
            if read > site.size:  # a shuffle deals out groups that lose the same channels
                mask = mask.repeat_interleave(read // site.size)

            def hide(module: nn.Module, given: Any, mask: Tensor = mask) -> Any:
                return (given[0] * (mask.view(-1, 1, 1) if given[0].dim() == 4 else mask), *given[1:])

            hooks.append(model.get_submodule(name).register_forward_pre_hook(hide))
    yield
    for hook in hooks:
        hook.remove()


def leaves(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.parametrize("case", CASES)
def test_the_cut_network_computes_what_the_masked_original_does(case: str) -> None:
    model, x = build(case)
    result = compress(model, x, ratio=0.5, decomposition="none")
    assert result.sites, "one awkward operation does not refuse the whole network"
    with torch.no_grad(), masked(model, result):
        expected = leaves(model(x))
    if case in ("group norm", "rms norm"):  # what they divide by changes with what is left, see the conformance tests
        expected = expected[:0]
    with torch.no_grad():
        found = leaves(result.model(x))
    for a, b in zip(expected, found, strict=False):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)
    known = {n for site in result.sites for n in (*site.producers, *site.channel_wise)} | set(result.skipped)
    convolutions = {n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {n for n in convolutions if not any(n.startswith(k) for k in known)} == set()


def test_the_masks_can_fail() -> None:
    model, x = build("nothing")
    result = compress(model, x, ratio=0.5, decomposition="none")
    with torch.no_grad(), masked(model, result):
        assert float((model(x) - build("nothing")[0](x)).abs().max()) > 1e-3


@pytest.mark.parametrize("case", ["ChannelShuffle", "F.channel_shuffle", "mT", "bias as data", "rms norm", "alpha"])
def test_what_is_described_is_cut(case: str) -> None:
    model, x = build(case)
    result = compress(model, x, ratio=0.5, decomposition="none")
    assert {p for site in result.sites for p in site.producers} >= {"conv1", "conv2"}
    assert all(2 * len(site.kept) == site.size for site in result.sites)
