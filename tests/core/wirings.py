"""More wirings: small networks of what torchvision does not show, and the doubled versions of some of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.blocks import C2fNet, OwnNorms, PaddedLast
from tests.core.nets import factors, scales
from tests.planting import randomise, split_columns, twin_norm, twin_rows

N = 8


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


class Grouped(nn.Module):
    """ResNeXt's inside: pointwise, two groups, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, N, 1, bias=False), nn.BatchNorm2d(N)
        self.conv2, self.bn2 = nn.Conv2d(N, N, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(N)
        self.conv3, self.fc = nn.Conv2d(N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(F.relu(self.conv3(x)).mean((2, 3)))


class DenseBlock(nn.Module):
    """Everything so far is concatenated, then batch norm, ReLU, convolution: each reader norms each channel anew."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, N, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(N), nn.Conv2d(N, N, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(2 * N), nn.Conv2d(2 * N, N, 3, padding=1, bias=False)
        self.bn3, self.fc = nn.BatchNorm2d(3 * N), nn.Linear(3 * N, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.conv0(x)]
        parts.append(self.conv1(F.relu(self.bn1(parts[0]))))
        parts.append(self.conv2(F.relu(self.bn2(torch.cat(parts, 1)))))
        return self.fc(F.relu(self.bn3(torch.cat(parts, 1))).mean((2, 3)))


class TwoReaders(nn.Module):
    """One raw convolution, two readers with batch norms of their own and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, N, 3, padding=1)
        self.bn_a, self.conv_a = nn.BatchNorm2d(N), nn.Conv2d(N, N, 1)
        self.bn_b, self.conv_b = nn.BatchNorm2d(N), nn.Conv2d(N, N, 3, padding=1)
        self.conv_c = nn.Conv2d(N, N, 1)
        self.fc = nn.Linear(3 * N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        a = F.relu(self.conv_a(F.relu(self.bn_a(x))))
        b = F.relu(self.conv_b(F.relu(self.bn_b(x))))
        c = F.relu(self.conv_c(F.leaky_relu(x)))
        return self.fc(torch.cat([a, b, c], 1).mean((2, 3)))


class OneD(nn.Module):
    """Conv1d on (N, C, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(3, N, 3, padding=1), nn.BatchNorm1d(N)
        self.conv2, self.fc = nn.Conv1d(N, N, 5, stride=2, dilation=2), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(F.relu(self.conv2(x)).mean(2))


class ThreeD(nn.Module):
    """Conv3d on (N, C, D, H, W), flattened to linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, N, 3, padding=1, bias=False), nn.BatchNorm3d(N)
        self.conv2 = nn.Conv3d(N, N, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * N, N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.adaptive_avg_pool3d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


class Decoder(nn.Module):
    """Down, up by a transposed convolution, joined with what was there before: a small U-net."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bn1 = nn.Conv2d(3, N, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(N)
        self.up, self.bn2 = nn.ConvTranspose2d(N, N, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(N)
        self.side, self.last = nn.Conv2d(3, N, 1), nn.Conv2d(2 * N, N, 3, padding=1)
        self.out = nn.ConvTranspose2d(N, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        low = F.relu(self.bn1(self.down(x)))
        high = F.relu(self.bn2(self.up(low)))
        x = torch.cat([high, F.relu(self.side(x))], 1)
        return self.out(F.relu(self.last(F.interpolate(x, scale_factor=0.5))))


class Recurrent(nn.Module):
    """One convolution applied three times: what it writes is what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, N, 1), nn.Conv2d(N, N, 3, padding=1), nn.Linear(N, 5)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        for _ in range(3):
            x = self.relu(self.conv(x))
        return self.fc(x.mean((2, 3)))


class Siamese(nn.Module):
    """Two inputs through one encoder; their features side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = nn.Conv2d(3, N, 3), nn.BatchNorm2d(N), nn.Conv2d(N, N, 3)
        self.fc1, self.fc2 = nn.Linear(2 * N, N), nn.Linear(N, 5)

    def encode(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.bn1(self.conv1(x))))).mean((2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([self.encode(x), self.encode(y)], dim=1)
        return self.fc2(F.relu(self.fc1(both)))


class TwoInputs(nn.Module):
    """An image and a vector, added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc_in = nn.Conv2d(3, N, 3), nn.Linear(4, N)
        self.fc = nn.Linear(N, 5)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        x = F.relu(self.conv(image)).mean((2, 3)) + F.relu(self.fc_in(vector))
        return self.fc(F.relu(x))


class ManyOutputs(nn.Module):
    """A dictionary with a tuple in it; nothing of the hidden layers comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, N, 3), nn.Conv2d(N, N, 3)
        self.head, self.aux, self.map = nn.Linear(N, 5), nn.Linear(N, 3), nn.Conv2d(N, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = F.relu(self.conv1(x))
        y = F.relu(self.conv2(x))
        pooled = y.mean((2, 3))
        return {"logits": self.head(pooled), "more": (self.aux(pooled), [self.map(x)])}


class FlatNorm(nn.Module):
    """Flattened maps, then a batch norm with a γ of its own for every position of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, N, 3, padding=1), nn.BatchNorm1d(4 * N)
        self.fc1, self.fc2 = nn.Linear(4 * N, N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_max_pool2d(F.relu(self.conv(x)), 2)
        x = self.bn(x.view(x.size(0), -1))
        return self.fc2(F.relu(self.fc1(x)))


class ChannelPReLU(nn.Module):
    """One slope per channel, with and without a batch norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, N, 3), nn.BatchNorm2d(N), nn.PReLU(N)
        self.conv2, self.act2, self.fc = nn.Conv2d(N, N, 3), nn.PReLU(N), nn.Linear(N, 5)
        self.act1.weight.data, self.act2.weight.data = torch.linspace(-0.5, 0.9, N), torch.linspace(0.9, 0.1, N)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act2(self.conv2(self.act1(self.bn1(self.conv1(x))))).mean((2, 3)))


class NormBehind(nn.Module):
    """convolution - ReLU - batch norm - convolution: the norm comes after the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, N, 3), nn.BatchNorm2d(N)
        self.conv2, self.bn2 = nn.Conv2d(N, N, 3), nn.BatchNorm2d(N)
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(F.relu(self.conv1(x)))
        return self.fc(self.bn2(F.relu(self.conv2(x))).mean((2, 3)))


class Products(nn.Module):
    """Two maps multiplied, two subtracted, the larger of two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, N, 3) for _ in range(3))
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = F.relu(self.a(x)), F.relu(self.b(x)), self.c(x)
        return self.fc(torch.maximum(a * b - c, c).mean((2, 3)))


class SumOfConcat(nn.Module):
    """[a, b] + c: one set whose producers write different parts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, N // 2, 3), nn.Conv2d(3, N // 2, 3)
        self.c, self.d, self.fc = nn.Conv2d(3, N, 3), nn.Conv2d(N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x), self.b(x)], 1) + self.c(x)
        return self.fc(F.relu(self.d(F.relu(x))).mean((2, 3)))


class LayerScale(nn.Module):
    """x + γ·f(x) with one learned γ per channel, and a learned number in front of another branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = nn.Conv2d(3, N, 1), nn.Conv2d(N, N, 3, padding=1), nn.Conv2d(N, N, 1)
        self.gamma, self.alpha = (
            nn.Parameter(torch.linspace(0.3, 0.7, N).view(N, 1, 1)),
            nn.Parameter(torch.tensor(0.4)),
        )
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.gamma * self.conv1(x))
        x = F.relu(x + self.alpha * self.conv2(x))
        return self.fc(x.mean((2, 3)))


class MobileBlock(nn.Module):
    """Inverted residual with depthwise convolution and gate (ReLU inside), on a coupled stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, N, 1, bias=False), nn.BatchNorm2d(N)
        self.expand, self.bn1 = nn.Conv2d(N, N, 1, bias=False), nn.BatchNorm2d(N)
        self.depth, self.bn2 = nn.Conv2d(N, N, 3, padding=1, groups=N, bias=False), nn.BatchNorm2d(N)
        self.gate1, self.gate2 = nn.Conv2d(N, 4, 1), nn.Conv2d(4, N, 1)
        self.project, self.bn3 = nn.Conv2d(N, N, 1, bias=False), nn.BatchNorm2d(N)
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(self.stem(x))
        y = F.relu(self.bn2(self.depth(F.relu(self.bn1(self.expand(x))))))
        y = y * F.hardsigmoid(self.gate2(F.relu(self.gate1(F.adaptive_avg_pool2d(y, 1)))))
        return self.fc((x + self.bn3(self.project(y))).mean((2, 3)))


class Split(nn.Module):
    """One convolution whose halves go different ways and meet in a product (a gated unit)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last, self.fc = nn.Conv2d(3, 2 * N, 3), nn.Conv2d(N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, dim=1)
        return self.fc(F.relu(self.last(F.relu(a) * torch.sigmoid(b))).mean((2, 3)))


class Shuffle(nn.Module):
    """Two branches, concatenated and shuffled, then split in halves again, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, N, 1), nn.Conv2d(3, N, 1)
        self.branch, self.depth = nn.Conv2d(N, N, 1), nn.Conv2d(N, N, 3, padding=1, groups=N)
        self.fc = nn.Linear(2 * N, 5)

    def mix(self, a: Tensor, b: Tensor) -> Tensor:
        x = torch.cat([a, b], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.relu(self.left(x)), F.relu(self.right(x)))
        stay, go = x.chunk(2, dim=1)
        x = self.mix(stay, F.relu(self.depth(F.relu(self.branch(go)))))
        return self.fc(x.mean((2, 3)))


class Tokens(nn.Module):
    """A transformer's MLP (GELU) on tokens behind a layer norm, and one linear layer over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, N), nn.LayerNorm(N)
        self.fc1, self.fc2, self.head = nn.Linear(N, 2 * N), nn.Linear(2 * N, N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return self.head(x.mean(1))


class Attention(nn.Module):
    """Single-head attention written by hand; its MLP can be cut, its queries and keys cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(N, N) for _ in range(4))
        self.fc1, self.fc2, self.head = nn.Linear(N, 2 * N), nn.Linear(2 * N, N), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
        x = x + self.out(scores @ self.v(x))
        x = x + self.fc2(F.relu(self.fc1(x)))
        return self.head(x.mean(1))


class GroupNorms(nn.Module):
    """Group norm with two groups, with one group per channel, and instance norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, N, 3, padding=1), nn.GroupNorm(2, N)
        self.conv2, self.norm2 = nn.Conv2d(N, N, 3, padding=1), nn.GroupNorm(N, N)
        self.conv3, self.norm3 = nn.Conv2d(N, N, 3, padding=1), nn.InstanceNorm2d(N, affine=True)
        self.fc = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.fc(F.relu(self.norm3(self.conv3(x))).mean((2, 3)))


class ChannelsLast(nn.Module):
    """ConvNeXt's inside: maps permuted so that linear layers and the layer norm see channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, N, 1), nn.Conv2d(N, N, 3, padding=1, groups=N)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(N), nn.Linear(N, 2 * N), nn.Linear(2 * N, N)
        self.head = nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        x = x + self.fc2(F.silu(self.fc1(y))).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """Parameters and functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(draw(N, 3, 3, 3)), nn.Parameter(draw(N))
        self.w2, self.b2 = nn.Parameter(draw(5, N)), nn.Parameter(draw(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.w1, self.b1, padding=1))
        return F.linear(x.mean((2, 3)), self.w2, self.b2)


class BranchOnShape(nn.Module):
    """Control flow on shapes, which symbolic tracing cannot follow: torch.export does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, N, 3, padding=1), nn.BatchNorm2d(N)
        self.conv2, self.fc = nn.Conv2d(N, N, 3, padding=1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if x.shape[-1] > 4:
            x = F.max_pool2d(x, 2)
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class Multiplier(nn.Module):
    """A depthwise convolution with two filters per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.depth = nn.Conv2d(3, N, 3), nn.Conv2d(N, 2 * N, 3, groups=N)
        self.conv2, self.fc = nn.Conv2d(2 * N, N, 1), nn.Linear(N, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depth(F.relu(self.conv1(x))))
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


@dataclass(frozen=True)
class Wiring:
    """A network with inputs that it takes, and its doubled version where it can be written down."""

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    double: Callable[[nn.Module], nn.Module] | None = None

    def make(self) -> nn.Module:
        return randomise(self.build())

    def twins(self) -> tuple[nn.Module, nn.Module]:
        """The network, and one of double width that computes the same function."""
        assert self.double is not None
        net = self.make()
        with torch.no_grad():
            return net, self.double(copy.deepcopy(net))


def _interleave(layer: nn.Module, groups: int, *names: str) -> None:
    """Bring [all originals, all twins] into the order [originals and twins of group 1, of group 2, …]."""
    for name in names:
        value = getattr(layer, name)
        if value is not None:
            order = torch.arange(len(value)).view(2, groups, -1).transpose(0, 1).flatten()
            setattr(layer, name, nn.Parameter(value[order]) if isinstance(value, nn.Parameter) else value[order])


ROWS, STATS = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")


def double_grouped(net: Grouped) -> Grouped:
    f, s, g = factors(True), scales(), factors(True, seed=5)
    twin_rows(net.conv1, f)
    twin_norm(net.bn1, f, s)
    _interleave(net.conv1, 2, *ROWS)
    _interleave(net.bn1, 2, *STATS)
    v = net.conv2.weight.data.view(2, N // 2, N // 2, 3, 3)  # (group, out, in)
    view = s.view(2, 1, N // 2, 1, 1)
    net.conv2.weight.data = torch.cat([v * 0.6, v * 0.4 / view], 2).flatten(0, 1)
    net.conv2.in_channels = 2 * N
    twin_rows(net.conv2, g)
    net.conv2.in_channels = 2 * N
    twin_norm(net.bn2, g, s.flip(0))
    _interleave(net.conv2, 2, *ROWS)
    _interleave(net.bn2, 2, *STATS)
    half = nn.Linear(N, N)
    half.weight.data = net.conv3.weight.data.flatten(1)
    split_columns(half, s.flip(0))
    order = torch.arange(2 * N).view(2, 2, -1).transpose(0, 1).flatten()
    net.conv3.weight.data = half.weight.data[:, order].view(N, 2 * N, 1, 1)
    net.conv3.in_channels = 2 * N
    twin_rows(net.conv3, h := factors(False))
    split_columns(net.fc, h)
    return net


def _split_parts(layer: nn.Module, parts: list[Tensor], share: float = 0.4) -> None:
    """`split_columns` for a reader of several doubled parts side by side: columns become [1, 1', 2, 2', …]."""
    v = layer.weight.data
    columns = []
    for piece, scale in zip(v.split([len(p) for p in parts], 1), parts, strict=True):
        view = scale.view(1, -1, *[1] * (v.dim() - 2))
        columns += [piece * (1 - share), piece * share / view]
    layer.weight.data = torch.cat(columns, 1)
    name = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
    setattr(layer, name, layer.weight.shape[1])


def _norm_parts(norm: nn.BatchNorm2d, parts: list[tuple[Tensor, Tensor]]) -> None:
    """`twin_norm` for several doubled parts side by side; parts: (factor, scale) of each."""
    pieces = []
    start = 0
    for factor, scale in parts:
        piece = nn.BatchNorm2d(len(factor))
        for name in STATS:
            value = getattr(norm, name)[start : start + len(factor)].detach().clone()
            setattr(piece, name, nn.Parameter(value) if name in ROWS else value)
        twin_norm(piece, factor, scale)
        pieces.append(piece)
        start += len(factor)
    for name in STATS:
        value = torch.cat([getattr(piece, name).detach() for piece in pieces])
        setattr(norm, name, nn.Parameter(value) if name in ROWS else value)
    norm.num_features = len(norm.weight)


def double_dense(net: DenseBlock) -> DenseBlock:
    f, g, h, s = factors(True), factors(True, seed=5), factors(True, seed=6), scales()
    twin_rows(net.conv0, f)
    twin_norm(net.bn1, f, s)
    split_columns(net.conv1, s)
    twin_rows(net.conv1, g)
    _norm_parts(net.bn2, [(f, s.flip(0)), (g, s)])
    _split_parts(net.conv2, [s.flip(0), s])
    twin_rows(net.conv2, h)
    _norm_parts(net.bn3, [(f, s), (g, s.flip(0)), (h, s)])
    _split_parts(net.fc, [s, s.flip(0), s])
    return net


def double_two_readers(net: TwoReaders) -> TwoReaders:
    f, s, g = factors(False), scales(), factors(False, seed=5)
    twin_rows(net.conv, f)
    twin_norm(net.bn_a, f, s)
    twin_norm(net.bn_b, f, s.flip(0))
    for reader, scale in ((net.conv_a, s), (net.conv_b, s.flip(0)), (net.conv_c, f)):
        split_columns(reader, scale)
        twin_rows(reader, g)
    _split_parts(net.fc, [g, g, g])
    return net


def double_chain(net: Any) -> Any:
    """conv1 - bn1 - conv2 - fc, of any dimension."""
    twin_rows(net.conv1, f := factors(True))
    twin_norm(net.bn1, f, scales())
    split_columns(net.conv2, scales())
    twin_rows(net.conv2, g := factors(False))
    split_columns(net.fc, g)
    return net


def double_three_d(net: ThreeD) -> ThreeD:
    twin_rows(net.conv1, f := factors(True))
    twin_norm(net.bn1, f, scales())
    split_columns(net.conv2, scales())
    twin_rows(net.conv2, g := factors(False))
    split_columns(net.fc1, g, repeat=8)
    twin_rows(net.fc1, h := factors(False, seed=4))
    split_columns(net.fc2, h)
    return net


def _twin_out(layer: nn.ConvTranspose2d, factor: Tensor) -> None:
    view = factor.view(1, -1, 1, 1)
    layer.weight.data = torch.cat([layer.weight.data, layer.weight.data * view], 1)
    if layer.bias is not None:
        layer.bias.data = torch.cat([layer.bias.data, layer.bias.data * factor])
    layer.out_channels = layer.weight.shape[1]


def _split_in(layer: nn.ConvTranspose2d, scale: Tensor, share: float = 0.4) -> None:
    v = layer.weight.data
    layer.weight.data = torch.cat([v * (1 - share), v * share / scale.view(-1, 1, 1, 1)])
    layer.in_channels = layer.weight.shape[0]


def double_decoder(net: Decoder) -> Decoder:
    f, s, g, h = factors(True), scales(), factors(False, seed=5), factors(False, seed=6)
    twin_rows(net.down, f)
    twin_norm(net.bn1, f, s)
    _split_in(net.up, s)
    _twin_out(net.up, f)
    twin_norm(net.bn2, f, s.flip(0))
    twin_rows(net.side, g)
    _split_parts(net.last, [s.flip(0), g])
    twin_rows(net.last, h)
    _split_in(net.out, h)
    return net


def double_recurrent(net: Recurrent) -> Recurrent:
    f = factors(False)
    twin_rows(net.stem, f)
    split_columns(net.conv, f)
    twin_rows(net.conv, f)
    split_columns(net.fc, f)
    return net


def double_siamese(net: Siamese) -> Siamese:
    f, s, g, h = factors(True), scales(), factors(False, seed=5), factors(False, seed=6)
    twin_rows(net.conv1, f)
    twin_norm(net.bn1, f, s)
    split_columns(net.conv2, s)
    twin_rows(net.conv2, g)
    _split_parts(net.fc1, [g, g])
    twin_rows(net.fc1, h)
    split_columns(net.fc2, h)
    return net


def double_two_inputs(net: TwoInputs) -> TwoInputs:
    f = factors(False)
    twin_rows(net.conv, f)
    twin_rows(net.fc_in, f)
    split_columns(net.fc, f)
    return net


def double_many_outputs(net: ManyOutputs) -> ManyOutputs:
    f, g = factors(False), factors(False, seed=5)
    twin_rows(net.conv1, f)
    split_columns(net.conv2, f)
    split_columns(net.map, f)
    twin_rows(net.conv2, g)
    split_columns(net.head, g)
    split_columns(net.aux, g)
    return net


def double_flat_norm(net: FlatNorm) -> FlatNorm:
    f, s, g = factors(False), scales(), factors(False, seed=5)
    twin_rows(net.conv, f)
    twin_norm(net.bn, f.repeat_interleave(4), s.repeat_interleave(4))
    split_columns(net.fc1, s, repeat=4)
    twin_rows(net.fc1, g)
    split_columns(net.fc2, g)
    return net


def double_channel_prelu(net: ChannelPReLU) -> ChannelPReLU:
    for act in (net.act1, net.act2):
        act.weight.data = act.weight.data.repeat(2)
        act.num_parameters = 2 * N
    return double_chain(net)


def double_norm_behind(net: NormBehind) -> NormBehind:
    f, s, g = factors(False), scales(), factors(False, seed=5)
    twin_rows(net.conv1, f)
    twin_norm(net.bn1, f, s)
    split_columns(net.conv2, s)
    twin_rows(net.conv2, g)
    twin_norm(net.bn2, g, s.flip(0))
    split_columns(net.fc, s.flip(0))
    return net


def double_products(net: Products) -> Products:
    f, g = factors(False).sqrt() / 2, factors(False, seed=5).sqrt() / 2
    twin_rows(net.a, f)
    twin_rows(net.b, g)
    twin_rows(net.c, f * g)
    split_columns(net.fc, f * g)
    return net


def double_layer_scale(net: LayerScale) -> LayerScale:
    f = factors(False)
    twin_rows(net.stem, f)
    for conv in (net.conv1, net.conv2):
        split_columns(conv, f)
        twin_rows(conv, f)
    net.gamma.data = net.gamma.data.repeat(2, 1, 1)
    split_columns(net.fc, f)
    return net


def double_mobile_block(net: MobileBlock) -> MobileBlock:
    f, g, s, k = factors(True), factors(True, seed=5), scales(), factors(True, seed=7) * 10
    twin_rows(net.stem, f)
    twin_norm(net.bn0, f, s)
    split_columns(net.expand, s)
    twin_rows(net.expand, g)
    twin_norm(net.bn1, g, s.flip(0))
    twin_rows(net.depth, k)
    net.depth.groups = net.depth.in_channels = 2 * N
    twin_norm(net.bn2, k * s.flip(0), s)
    split_columns(net.gate1, s)
    twin_rows(net.gate1, h := factors(False, 4))
    split_columns(net.gate2, h)
    twin_rows(net.gate2, torch.ones(N))
    split_columns(net.project, s)
    twin_rows(net.project, f)
    twin_norm(net.bn3, f, s)
    split_columns(net.fc, s)
    return net


IMAGE = (draw(4, 3, 8, 8),)
WIRINGS: dict[str, Wiring] = {
    "grouped": Wiring(Grouped, IMAGE, double_grouped),
    "dense-block": Wiring(DenseBlock, IMAGE, double_dense),
    "two-readers": Wiring(TwoReaders, IMAGE, double_two_readers),
    "conv1d": Wiring(OneD, (draw(4, 3, 32),), double_chain),
    "conv3d": Wiring(ThreeD, (draw(2, 3, 4, 4, 4),), double_three_d),
    "decoder": Wiring(Decoder, IMAGE, double_decoder),
    "recurrent": Wiring(Recurrent, IMAGE, double_recurrent),
    "siamese": Wiring(Siamese, (draw(4, 3, 8, 8), draw(4, 3, 8, 8).flip(0)), double_siamese),
    "two-inputs": Wiring(TwoInputs, (*IMAGE, draw(4, 4)), double_two_inputs),
    "many-outputs": Wiring(ManyOutputs, IMAGE, double_many_outputs),
    "flat-norm": Wiring(FlatNorm, IMAGE, double_flat_norm),
    "channel-prelu": Wiring(ChannelPReLU, IMAGE, double_channel_prelu),
    "norm-behind": Wiring(NormBehind, IMAGE, double_norm_behind),
    "products": Wiring(Products, IMAGE, double_products),
    "layer-scale": Wiring(LayerScale, IMAGE, double_layer_scale),
    "mobile-block": Wiring(MobileBlock, IMAGE, double_mobile_block),
    "branch-on-shape": Wiring(BranchOnShape, IMAGE, double_chain),
    "sum-of-concat": Wiring(SumOfConcat, IMAGE),
    "split": Wiring(Split, IMAGE),
    "shuffle": Wiring(Shuffle, IMAGE),
    "tokens": Wiring(Tokens, (draw(3, 7, 6),)),
    "attention": Wiring(Attention, (draw(3, 7, N),)),
    "group-norms": Wiring(GroupNorms, IMAGE),
    "channels-last": Wiring(ChannelsLast, IMAGE),
    "functional": Wiring(Functional, IMAGE),
    "multiplier": Wiring(Multiplier, IMAGE),
    "c2f": Wiring(C2fNet, IMAGE),
    "c2f-without-sums": Wiring(partial(C2fNet, shortcut=False), IMAGE),
    "own-norms": Wiring(OwnNorms, IMAGE),
    "padded-last": Wiring(PaddedLast, IMAGE),
}
