"""Layers that read channels: functions of parameters, unusual modules, reparametrised weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from tests.fuzz.constructs import ALL, MAPS, TOKENS, VECTORS, Body, Draw, construct

FLAT = (TOKENS, VECTORS)


class StandardisedConv(nn.Conv2d):
    """Its weight is standardised in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, 0.1 * w, self.bias, self.stride, self.padding)


class SameConv(nn.Conv2d):
    """Pads in its own forward, as TensorFlow would."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 2, 1, 1)), self.weight, self.bias, self.stride, self.padding)


class ScaledConv(nn.Conv2d):
    """Its weight times a learned gain per row."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=1)


class HalvedLinear(nn.Linear):
    """A linear layer that does something else than its class says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2 + x.mean(-1, keepdim=True)


class Masked(nn.Linear):
    """A linear layer with a mask on its weight."""

    def __init__(self, reads: int, writes: int) -> None:
        super().__init__(reads, writes)
        self.register_buffer("mask", (torch.rand(writes, reads) > 0.3).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def one(name: str, make: Callable[[int], nn.Module], *kinds: str, width: Callable[[int], int] = lambda c: c) -> None:
    """One module and a ReLU behind it."""
    construct(name, *kinds)(lambda d, c: Body(lambda m, x: F.relu(m.layer(x)), width(c), layer=make(c)))


one("depthwise", lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c), MAPS)
one("depthwise-multiplier", lambda c: nn.Conv2d(c, 2 * c, 3, padding=1, groups=c), MAPS, width=lambda c: 2 * c)
one("grouped", lambda c: nn.Conv2d(c, c, 3, padding=1, groups=4), MAPS)
one("grouped-linear", lambda c: nn.Conv2d(c, 2 * c, 1, groups=2, bias=False), MAPS, width=lambda c: 2 * c)
one("dilated", lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2), MAPS)
one("reflection-padded", lambda c: nn.Conv2d(c, c, 3, padding=1, padding_mode="reflect"), MAPS)
one("circular-padded", lambda c: nn.Conv2d(c, c, 3, padding=1, padding_mode="circular"), MAPS)
one("padding-same", lambda c: nn.Conv2d(c, c, 3, padding="same"), MAPS)
one("strided", lambda c: nn.Sequential(nn.Conv2d(c, c, 2, stride=2), nn.Upsample(scale_factor=2)), MAPS)
one("transposed", lambda c: nn.Sequential(nn.ConvTranspose2d(c, c, 2, stride=2), nn.MaxPool2d(2)), MAPS)
one("transposed-grouped", lambda c: nn.ConvTranspose2d(c, c, 3, padding=1, groups=2), MAPS)
one("standardised-conv", lambda c: StandardisedConv(c, c, 3, padding=1), MAPS)
one("same-conv", lambda c: SameConv(c, c, 3), MAPS)
one("scaled-conv", lambda c: ScaledConv(c, c, 3), MAPS)
one("halved-linear", lambda c: HalvedLinear(c, c), *FLAT)
one("masked-linear", lambda c: Masked(c, c), *FLAT)
one("prelu-each", lambda c: nn.Sequential(nn.PReLU(c)), MAPS, VECTORS)
one("quantisation-stub", lambda c: nn.Sequential(nn.Identity(), nn.Dropout2d(0.1), nn.Conv2d(c, c, 1)), MAPS)


@construct("prelu-one")
def prelu_one(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.act(m.layer(x)), c, layer=d.layer(c, c), act=nn.PReLU())


@construct("conv-1d", MAPS)
def conv_1d(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.conv(x.flatten(2))).unflatten(2, (8, 8)), c, conv=nn.Conv1d(c, c, 3, padding=1))


@construct("conv-3d", MAPS)
def conv_3d(d: Draw, c: int) -> Body:
    return Body(
        lambda m, x: F.relu(m.conv(x.unsqueeze(2)).squeeze(2)), c, conv=nn.Conv3d(c, c, (1, 3, 3), padding="same")
    )


@construct("conv-of-vectors", VECTORS)
def conv_of_vectors(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.conv(x[..., None]).squeeze(-1)), c, conv=nn.Conv1d(c, c, 1))


@construct("f-conv", MAPS)
def f_conv(d: Draw, c: int) -> Body:
    return Body(
        lambda m, x: F.relu(F.conv2d(x, m.w, m.b, padding=1)), c + 4, w=d.weights(c + 4, c, 3, 3), b=d.weights(c + 4)
    )


@construct("f-conv-literal-groups", MAPS)
def f_depthwise(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.conv2d(x, m.w, padding=1, groups=c), c, w=d.weights(c, 1, 3, 3))


@construct("f-conv-counted-groups", MAPS)
def f_counted(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.conv2d(x, m.w, padding=1, groups=x.shape[1]), c, w=d.weights(c, 1, 3, 3))


@construct("f-conv-transpose", MAPS)
def f_transpose(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(F.conv_transpose2d(x, m.w, padding=1)), 8, w=d.weights(c, 8, 3, 3))


@construct("blur", MAPS)
def blur(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, m.kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])

    return Body(forward, c, kernel=nn.Parameter(torch.rand(1, 1, 3, 3)))


@construct("f-linear", *FLAT)
def f_linear(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(F.linear(x, m.w, m.b)), c + 4, w=d.weights(c + 4, c), b=d.weights(c + 4))


@construct("matmul-parameter", *FLAT)
def matmul(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(torch.matmul(x, m.w)), 12, w=d.weights(c, 12))


@construct("at-parameter", *FLAT)
def at(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(x @ m.w.T + m.b), 12, w=d.weights(12, c), b=d.weights(12))


@construct("einsum-parameter", *ALL)
def einsum(d: Draw, c: int) -> Body:
    equation = {MAPS: "nchw,oc->nohw", TOKENS: "ntc,oc->nto", VECTORS: "nc,oc->no"}[d.kind]
    return Body(lambda m, x: F.relu(torch.einsum(equation, x, m.w)), 12, w=d.weights(12, c))


@construct("addmm-parameter", VECTORS)
def addmm(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(torch.addmm(m.b, x, m.w)), 12, w=d.weights(c, 12), b=d.weights(12))


@construct("bmm-parameter", TOKENS)
def bmm(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(torch.bmm(x, m.w.expand(x.shape[0], -1, -1))), 12, w=d.weights(1, c, 12))


@construct("bilinear", *FLAT)
def bilinear(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(m.layer(x, m.other(x))), c, layer=nn.Bilinear(c, 4, c), other=nn.Linear(c, 4))


@construct("low-rank", *FLAT)
def low_rank(d: Draw, c: int) -> Body:
    return Body(lambda m, x: x + (x @ m.a) @ m.b, c, a=d.weights(c, 4), b=d.weights(4, c))


@construct("weights-made-on-the-fly", VECTORS)
def made(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(F.linear(x, m.a @ m.b)), 12, a=d.weights(12, 3), b=d.weights(3, c))


@construct("part-of-a-weight", *FLAT)
def part_of_weight(d: Draw, c: int) -> Body:
    return Body(lambda m, x: F.relu(F.linear(x, m.layer.weight[:6])), 6, layer=nn.Linear(c, 12))


@construct("weight-read-twice", *FLAT)
def read_twice(d: Draw, c: int) -> Body:
    return Body(lambda m, x: m.layer(x) * m.layer.weight.norm(), c, layer=nn.Linear(c, c))


@construct("packed-projection", *FLAT)
def packed(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b, e = m.layer(x).chunk(3, -1)
        return F.relu(a) * torch.sigmoid(b) + e

    return Body(forward, 8, layer=nn.Linear(c, 24))


@construct("unfold-matmul", MAPS)
def unfold(d: Draw, c: int) -> Body:
    return Body(
        lambda m, x: F.relu(m.w @ F.unfold(x, 3, padding=1)).view(x.shape[0], -1, 8, 8), 8, w=d.weights(8, c * 9)
    )


@construct("unfold-module", MAPS)
def unfold_module(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.layer(m.unfold(x).transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 4)).repeat(1, 1, 2, 2)

    return Body(forward, 8, unfold=nn.Unfold(2, stride=2), layer=nn.Linear(4 * c, 8))


def reparametrised(name: str, change: Callable[[nn.Module], Any], *kinds: str) -> None:
    def make(d: Draw, c: int) -> Body:
        first, second = d.layer(c, c + 4), d.layer(c + 4, c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older of two ways is deprecated
            change(first)
            change(second)
        return Body(lambda m, x: m.second(F.relu(m.first(x))), c, first=first, second=second)

    construct(name, *kinds)(make)


reparametrised("weight-norm", lambda m: parametrizations.weight_norm(m))
reparametrised("weight-norm-old", lambda m: nn.utils.weight_norm(m))
reparametrised("spectral-norm", lambda m: parametrizations.spectral_norm(m))
reparametrised("spectral-norm-old", lambda m: spectral_norm(m))
reparametrised("orthogonal", lambda m: parametrizations.orthogonal(m), TOKENS, VECTORS)
reparametrised("pruned-entries", lambda m: prune.random_unstructured(m, "weight", 0.4))
reparametrised("pruned-rows", lambda m: prune.ln_structured(m, "weight", 0.25, n=2, dim=0))
