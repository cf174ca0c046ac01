"""A convolution as a sum of depthwise convolutions with a pointwise one behind each: the layers, and their weights.

Guo et al., Network Decoupling, BMVC 2018. Let W (o, i, K) be the weight of a convolution with K taps. The slice of one
in-channel c is a matrix W_c (o, K), and its singular value decomposition W_c = Σ_t σ_ct u_ct v_ctᵀ gives

    y = Σ_c W_c ∗ x_c = Σ_t P_t (D_t ∗ x)    with the filters D_t[c] = √σ_ct v_ct and the columns P_t[:,c] = √σ_ct u_ct:

a depthwise convolution D_t, which has the stride, the padding and the dilation, and a pointwise one P_t. The first T
terms are the best W of rank T in every slice (Eckart & Young), all K (or o, if that is less) are W itself. The T
depthwise convolutions are one with T filters per channel, the T pointwise ones one that reads all of what these write.

T terms have T·i·(K + o/g) weights where the convolution of g groups has i·o·K/g, so they save something only if
T < K·o/g / (K + o/g): never for pointwise (K = 1) and depthwise (o/g = 1) convolutions, which are left as they are.

# NOTE: the reverse order, pointwise before depthwise, needs as many weights, but with a stride more multiplications,
# and its SVD is that of each out-channel's slice; the paper finds it worse. It is not built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from core.moments import Moments

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Decoupled(nn.Module):
    """T filters per in-channel, and a pointwise convolution that reads what all of them write."""

    def __init__(self, depthwise: Conv, pointwise: Conv) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise, pointwise

    @property
    def terms(self) -> int:
        """T."""
        return self.depthwise.out_channels // self.depthwise.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the convolution of `composed`'s weight would."""
        result: Tensor = self.pointwise(self.depthwise(x))
        return result


@dataclass(frozen=True)
class Slices:
    """A convolution whose weight is taken apart: W_c = U_c diag(σ_c) V_cᵀ for every in-channel c, in float64.

    Attributes:
        name: of the layer.
        conv: the layer.
        u: (i, o/g, r).
        sigma: (i, r), falling.
        vt: (i, r, K).
    """

    name: str
    conv: Conv
    u: Tensor
    sigma: Tensor
    vt: Tensor

    @classmethod
    def of(cls, name: str, conv: Conv) -> Slices:
        """Of a convolution."""
        return cls(name, conv, *torch.linalg.svd(by_channel(conv.weight, conv.groups), full_matrices=False))

    @property
    def whole(self) -> int:
        """Number of weights as one convolution."""
        return self.conv.weight.numel()

    @property
    def each(self) -> int:
        """Number of weights of one term."""
        return self.sigma.shape[0] * (self.u.shape[1] + self.vt.shape[2])

    @property
    def most(self) -> int:
        """The largest T that saves weights; 0: none does."""
        return min((self.whole - 1) // self.each, self.sigma.shape[1])

    @cached_property
    def lost(self) -> list[float]:
        """Share of the energy that is lost with 0, 1, … terms; of a weight without any, nothing."""
        energy = self.sigma.square().sum(0)
        rest = energy.flip(0).cumsum(0).flip(0) / energy.sum().clamp_min(1e-300)
        return [*rest.tolist(), 0.0]

    def noise(self, terms: int) -> float:
        """What is lost for what is left."""
        return self.lost[terms] / max(1 - self.lost[terms], 1e-300)

    def split(self, terms: int) -> Decoupled:
        """The first ``terms``, as two layers."""
        conv, root = self.conv, self.sigma[:, :terms].sqrt()
        down = self.vt[:, :terms] * root[..., None]  # (i, T, K)
        across = self.u[:, :, :terms] * root[:, None]  # (i, o/g, T)
        inside = conv.in_channels // conv.groups
        across = across.view(conv.groups, inside, -1, terms).permute(0, 2, 1, 3)  # (g, o/g, i/g, T)
        found = hollow(conv, conv.in_channels, conv.out_channels, terms)
        for part, value in ((found.depthwise, down), (found.pointwise, across)):
            weight = value.reshape(part.weight.shape).to(conv.weight)
            part.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
        found.pointwise.bias = conv.bias
        return found.train(conv.training)


def by_channel(weight: Tensor, groups: int) -> Tensor:
    """The slices (i, o/g, K) of a convolution's weight (o, i/g, …) in float64, on the CPU."""
    w = weight.detach().cpu().double().flatten(2)
    return w.view(groups, len(w) // groups, *w.shape[1:]).transpose(1, 2).flatten(0, 1)


def composed(part: Decoupled) -> Tensor:
    """The weight (o, i/g, …) of the convolution that computes the same."""
    down, across, groups = part.depthwise.weight, part.pointwise.weight, part.pointwise.groups
    shape = (groups, part.depthwise.in_channels // groups, part.terms)
    v = down.detach().double().flatten(1).view(*shape, -1)
    u = across.detach().double().view(groups, -1, *shape[1:])
    return torch.einsum("goit,gitk->goik", u, v).reshape(len(across), shape[1], *down.shape[2:]).to(down)


def hollow(conv: Conv, inside: int, out: int, terms: int) -> Decoupled:
    """Two layers without numbers that can stand for ``conv``, from ``inside`` to ``out`` channels."""
    make = cast(Callable[..., Conv], type(conv))
    how: dict[str, Any] = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    bare: dict[str, Any] = {"device": "meta", "dtype": conv.weight.dtype}
    depthwise = make(inside, inside * terms, conv.kernel_size, groups=inside, bias=False, **how, **bare)
    pointwise = make(inside * terms, out, 1, groups=conv.groups, bias=conv.bias is not None, **bare)
    return Decoupled(depthwise, pointwise)


def stand_in(conv: Conv, terms: int, down: Sequence[int] | None, across: Sequence[int] | None) -> Decoupled | None:
    """Two layers without numbers, whose weights have the shapes ``down`` and ``across``, for a ``conv`` not narrower.

    None where the shapes are not those of two such layers.
    """
    if not down or not across or down[0] % terms or not 0 < down[0] // terms <= conv.in_channels:
        return None
    inside, out = down[0] // terms, across[0]
    if inside % conv.groups or out % conv.groups or not 0 < out <= conv.out_channels:
        return None
    found = hollow(conv, inside, out, terms)
    same = tuple(down) == tuple(found.depthwise.weight.shape) and tuple(across) == tuple(found.pointwise.weight.shape)
    return found if same else None


def put(model: nn.Module, conv: nn.Module, new: nn.Module) -> None:
    """Put ``new`` in every place of ``conv``."""
    for module in list(model.modules()):
        for key, child in module._modules.items():
            if child is conv:
                module._modules[key] = new


def refitted(
    solve: Callable[[Moments, Tensor], tuple[Tensor, Tensor]], moments: Moments, v: Tensor, taps: int, terms: int
) -> tuple[Tensor, Tensor]:
    """A weight (groups, out, in·K) whose slices have rank T, and a bias (groups, out), fitted to the moments.

    The filters are those of ``v``; ``solve`` fits the pointwise layer to what they write, starting from that of ``v``.
    """
    groups, out, _ = v.shape
    slices = v.view(groups, out, -1, taps).transpose(1, 2)  # (g, i, o, K)
    u, sigma, vt = (part for part in torch.linalg.svd(slices, full_matrices=False))
    inside, each = slices.shape[1], torch.arange(slices.shape[1])
    filters = v.new_zeros(groups, inside, terms, inside, taps)
    filters[:, each, :, each] = vt[:, :, :terms].transpose(0, 1)
    filters = filters.view(groups, inside * terms, inside * taps)
    across = (u * sigma[:, :, None])[..., :terms].transpose(1, 2).reshape(groups, out, -1)
    p, b = solve(moments.through(filters), across)
    return p @ filters, b
