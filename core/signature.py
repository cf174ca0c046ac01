r"""Signatures: how alike the channels of a set are where a consumer reads them, from the weights alone.

Two channels can be merged without loss when their functions are proportional, h_i = c·h_j. That is decided here for
any chain of channel-wise steps by carrying inner products instead of functions. A channel starts as its producer's
row W_i with constant b_i; ``gram`` holds ⟨W_i, W_j⟩ and every step has a rule on it:

==================  =============================================================================================
batch norm          G ← a aᵀ ∘ G, b ← β + a(b − μ), with a = γ/√(var + ε)
activation φ        G stays (positive homogeneity), the mean becomes E[φ(y)], y ~ N(β, γ²)
residual sum        G ← G₁ + G₂: the pair must be proportional with the same factor in both
depthwise k         G ← k kᵀ ∘ (G + b bᵀ): the filters must be proportional too
norm of each place  G ← k kᵀ ∘ (G + b bᵀ), k the factors γ of a channel at all places that it is read at
gate (sigmoid)      G ← exp(−‖g_i − g_j‖²/scale): a gate must be equal, not proportional
product             G ← G₁ ∘ G₂
==================  =============================================================================================

So cos_ij = G_ij/√(G_ii G_jj) is 1 exactly when the two functions are proportional, and then c = √(G_ii/G_jj). For one
convolution with batch norm this is the ``exact`` scale of docs/methods: rows γ/std·W carry the signs of γ.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from core.gaussian import covariance_of
from core.graph.nodes import Operation, Step
from core.graph.rules import APPROXIMATE, GATES

REMEMBERED = 8

LARGE = 1_000_000_000
"""Inner products that take more multiplications are computed in float32."""

STRIP = 256
"""Inner products are taken for at least so many rows at a time."""

DIVISIONS = {"div", "div_", "truediv", "itruediv"}

UNCHANGED = {"dropout", "dropout1d", "dropout2d", "dropout3d", "identity", "contiguous", "to", "clone", "detach",
             "stochastic_depth", "float", "alias", "type_as", "double", "half", "detach_",
             "lift_fresh_copy"}  # fmt: skip


@dataclass(frozen=True)
class PublishedTerms:
    """What the authors' batch-norm formula reads.

    Attributes:
        gram: (n, n) inner products of the rows without the norm.
        gamma: (n,) scales of the norm.
        beta: (n,) shifts of the norm.
        mean: (n,) running means.
        var: (n,) running variances.
    """

    gram: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Signature:
    """The channels of a set at one point of the network; all tensors float64.

    Attributes:
        gram: (n, n) inner products of the channels' linear parts.
        bias: (n,) constants added to them, not yet part of ``gram``.
        normed: whether ``bias`` comes from a batch norm, so that the distance of biases says something.
        inside: whether an activation has been passed, so that ``bias`` no longer adds to the value.
        mean: (n,) expected value of each channel, or None where it is not known.
        std: (n,) its standard deviation, or None.
        covariance: (n, n) of the channels, if it is followed and known (`core.gaussian`).
        approximate: operations passed that are not positively homogeneous.
        published: terms of the authors' formula, where the chain is convolution - batch norm - activation.
    """

    gram: Tensor
    bias: Tensor
    normed: bool = False
    inside: bool = False
    mean: Tensor | None = None
    std: Tensor | None = None
    covariance: Tensor | None = None
    approximate: tuple[str, ...] = ()
    published: PublishedTerms | None = None
    _memory: OrderedDict[Hashable, Tensor] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    def remember(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """What a method has computed from this signature under ``key``; the `REMEMBERED` last ones are kept."""
        if key in self._memory:
            self._memory.move_to_end(key)
        else:
            self._memory[key] = compute()
            if len(self._memory) > REMEMBERED:
                self._memory.popitem(last=False)
        return self._memory[key]

    def folded(self) -> Signature:
        """The constants taken into the inner products, as one more coordinate of each row."""
        gram = torch.outer(self.bias, self.bias).add_(self.gram) if bool(self.bias.any()) else self.gram
        return replace(self, gram=gram, bias=torch.zeros_like(self.bias), normed=False, inside=False, published=None)

    def take(self, index: Tensor) -> Signature:
        """The signature of some of the channels."""

        def pick(v: Tensor | None) -> Tensor | None:
            return None if v is None else v[index]

        p = self.published
        few = (
            None
            if p is None
            else PublishedTerms(p.gram[index][:, index], *(v[index] for v in (p.gamma, p.beta, p.mean, p.var)))
        )
        mean, std, square = pick(self.mean), pick(self.std), pick(self.covariance)
        gram, cov = self.gram[index][:, index], None if square is None else square[:, index]
        return replace(self, gram=gram, bias=self.bias[index], mean=mean, std=std, covariance=cov, published=few)

    def open(self) -> Signature:
        """The signature with a constant that still adds to the value: folded where an activation has closed it in."""
        return self.folded() if self.inside else self

    @property
    def constant(self) -> bool:
        """Whether no channel depends on the network's inputs."""
        return self.mean is not None and self.std is not None and not bool(self.gram.any() or self.std.any())

    def times(self, factor: float) -> Signature:
        """Every channel multiplied by one number."""
        return self if factor == 1 else self.scaled(torch.full_like(self.bias, factor))

    def scaled(self, a: Tensor) -> Signature:
        """Every channel i multiplied by a_i."""
        mean = None if self.mean is None else self.mean * a
        std, both = None if self.std is None else self.std * a.abs(), torch.outer(a, a)
        cov = None if self.covariance is None else self.covariance * both
        return replace(self, gram=both.mul_(self.gram), bias=self.bias * a, mean=mean, std=std, covariance=cov)


SUBTRACTIONS = ("sub", "sub_", "isub")


def summands(step: Step) -> list[tuple[fx.Node, float]]:
    """The inputs of a sum, and of a parameter's the parameter too, with their factors: a + alpha·b, a − alpha·b."""
    second = float(step.options.get("alpha", 1)) * (-1 if step.op in SUBTRACTIONS else 1)
    return list(zip((*step.inputs, step.node)[:2], (1.0, second), strict=True))


def times_constant(given: list[Signature], step: Step) -> Signature | None:
    """The product of channels with constants, or their quotient, if one of the two is constant."""
    first, second = given
    if second.constant and second.mean is not None:
        return first.open().scaled(1 / second.mean if step.op in DIVISIONS else second.mean)
    if first.constant and first.mean is not None and step.op not in DIVISIONS:
        return second.open().scaled(first.mean)
    return None


def beside(given: list[Signature], *, mean: bool = True) -> Signature:
    """Values that are read side by side: a pair must be proportional with one factor in each of them."""
    if len(given) == 1:
        return given[0]
    first, folded = given[0].mean, [s.folded() for s in given]
    known = mean and first is not None and all(s.mean is not None and torch.equal(s.mean, first) for s in given)
    cov = _add([s.covariance for s in given]) if known else None
    return Signature(
        gram=_sum([s.gram for s in folded]),
        bias=torch.zeros_like(given[0].bias),
        mean=first if known else None,
        covariance=None if cov is None else cov / len(given),
        approximate=tuple(dict.fromkeys(op for s in given for op in s.approximate)),
    )


def added(given: list[Signature]) -> Signature:
    """Values added: a pair must be proportional with one factor in all of them."""
    if len(given) == 1:
        return given[0]
    given = [s.open() for s in given]
    mean = _add([s.mean for s in given])
    std = _add([None if s.std is None else s.std**2 for s in given])
    return Signature(
        gram=_sum([s.gram for s in given]),
        bias=torch.stack([s.bias for s in given]).sum(0),
        normed=any(s.normed for s in given),
        mean=mean,
        std=None if std is None else std.sqrt(),
        covariance=_add([s.covariance for s in given]),
        approximate=tuple(dict.fromkeys(op for s in given for op in s.approximate)),
    )


def _add(values: list[Tensor | None]) -> Tensor | None:
    known = [v for v in values if v is not None]
    return _sum(known) if len(known) == len(values) else None


def _sum(values: list[Tensor]) -> Tensor:
    total = values[0] + values[1] if len(values) > 1 else values[0].clone()
    for value in values[2:]:
        total += value
    return total


def multiplied(given: list[Signature]) -> Signature:
    """Values multiplied channel by channel."""
    gram = given[0].folded().gram
    for other in given[1:]:
        gram = gram * other.folded().gram
    approximate = tuple(dict.fromkeys(op for s in given for op in s.approximate))
    return Signature(gram, gram.new_zeros(len(gram)), approximate=approximate)


def likeness(gram: Tensor) -> Tensor:
    """exp(−squared distance / mean squared length): 1 between equal rows, smaller the more they differ."""
    squares = gram.diagonal()
    distance = (squares[:, None] + squares[None, :]).sub_(gram, alpha=2).clamp_min_(0)
    return distance.neg_().div_(squares.mean().clamp_min(torch.finfo(gram.dtype).tiny)).exp_()


def activated(s: Signature, step: Step) -> Signature:
    """What an activation makes of its channels."""
    op, whole = step.op, step.options.get("exact", True)
    if op in UNCHANGED and whole:
        return s
    if op in GATES and s.covariance is None:
        return as_gate(s)
    exact = op not in APPROXIMATE and whole
    assert step.operation is not None
    mean, std = mean_and_std(step.operation, s.mean, s.std)
    cov = None
    if mean is not None and s.mean is not None and s.covariance is not None:
        cov = covariance_of(step.operation.apply, s.mean, s.covariance)
    if op in GATES:
        return replace(as_gate(s), mean=mean, std=std, covariance=cov)
    approximate = s.approximate if exact else (*s.approximate, op)
    return replace(s, inside=True, mean=mean, std=std, covariance=cov, approximate=approximate)


def as_gate(s: Signature) -> Signature:
    """What a bounded activation or a divisor makes of its channels: alike only where they are equal."""
    return Signature(likeness(s.folded().gram), torch.zeros_like(s.bias), approximate=s.approximate)


def mean_and_std(operation: Operation, mean: Tensor | None, std: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation of φ(y) for y ~ N(mean, std²), each (n,); φ is the ``operation``.

    ReLU's mean in closed form, everything else on 241 points of ±6 standard deviations (kinks rule out Gauss-Hermite).
    """
    if mean is None or std is None or not operation.repeatable:
        return None, None
    nodes = torch.linspace(-6, 6, 241, dtype=mean.dtype, device=mean.device)
    weights = torch.softmax(-0.5 * nodes**2, dim=0)
    phi = operation.apply(mean[:, None] + std[:, None] * nodes)
    first = (phi * weights).sum(1)
    spread = ((phi - first[:, None]) ** 2 * weights).sum(1).sqrt()
    if operation.op in ("relu", "relu_"):
        safe = std.clamp_min(torch.finfo(std.dtype).tiny)
        density = torch.exp(-0.5 * (mean / safe) ** 2) / math.sqrt(2 * math.pi)
        first = mean * torch.special.ndtr(mean / safe) + std * density
    return first, spread


def inner_products(rows: Tensor) -> Tensor:
    """⟨W_i, W_j⟩ (n, n) of rows (n, fan_in), as float64; large layers are multiplied in float32, which is enough."""
    rows = rows.float() if len(rows) * rows.numel() > LARGE else rows.double()
    size, step = len(rows), max(STRIP, -(-len(rows) // 8))
    gram = torch.empty(size, size, dtype=torch.float64)
    for start in range(0, size, step):  # half of it is the other half
        strip = torch.mm(rows[start : start + step], rows[start:].T)
        gram[start : start + step, start:] = strip
        gram[start + step :, start : start + step] = strip[:, step:].T
    return gram
