"""``most-similar`` (MostSim): each removed channel is carried by the kept one most like it.

Kim, Kim, Park, Jeon, "Neuron Merging: Compensating for Pruned Neurons", NeurIPS 2020, section 4 and algorithms 1-3.

With W ≈ Z·W_K, Z non-negative with at most one entry a row, and φ positively homogeneous, φ(Wx) ≈ Z·φ(W_K x): the
consumer V becomes V·Z. For a removed channel i and kept candidates j:

* without batch norm: j = argmax cos(W_i, W_j), Z_ij = ‖W_i‖/‖W_j‖, rows with the bias as last column;
* with batch norm: j = argmin λ·(1 − cos) + (1 − λ)·b, where b is the distance of the biases that remain after
  scaling, min-max normalised over the candidates (all equal: 0).

If cos < threshold the channel is only removed. ``bn_scale`` picks the batch-norm terms. ``exact`` follows from the
algebra of batch norm: with effective rows A = γ/√(var+ε)·W and b = β + γ(bias − μ)/√(var+ε), c = ‖A_i‖/‖A_j‖, the
cosine is that of A (so γ of opposite sign excludes a candidate, unless the rows are opposite too), d = b_i − c·b_j;
what remains of the mean, E[φ(y_i)] − c·E[φ(y_j)], goes into the consumer's bias. ``published`` is the authors'
formula, with the variance where the standard deviation belongs; it reproduces their tables, and nothing else speaks
for it.

Merging cannot help where no kept channel is alike; on VGG-like nets past half the channels, prefer ``least-squares``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, between, plain, proportional, register, removed
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import PublishedTerms, Signature


@register("most-similar")
class MostSimilar(Decomposition):
    """Carry each removed channel by the most similar kept one."""

    threshold: float = Field(0.1, ge=-1.0, le=1.0, description="the paper's t: least cosine at which to merge")
    lam: float = Field(0.85, ge=0.0, le=1.0, description="λ: weight of the cosine against the bias distance")
    bn_scale: Literal["exact", "published"] = Field("exact", description="terms of the batch-norm scale")

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return Z (n, k) and the offset (n,) of the method above."""
        start = plain(len(signature.gram), kept)
        gone = removed(len(signature.gram), kept)
        if len(gone) == 0:
            return start
        if self.bn_scale == "published" and signature.published is not None:
            cosine, distance, scale = _published_terms(signature.published, gone, kept)
        else:
            cosine, distance, scale = _exact_terms(signature, gone, kept)
        score = 1 - cosine
        if signature.normed:
            score.mul_(self.lam).add_(distance, alpha=1 - self.lam)
        best = score.nan_to_num_(nan=torch.inf, posinf=torch.inf).argmin(dim=1)
        pick = torch.arange(len(gone)), best
        carried = (cosine[pick] >= self.threshold) & score[pick].isfinite()
        c = torch.where(carried, scale(pick), 0.0)
        z, offset = start.z, start.offset
        z[gone, best] = c
        if signature.mean is not None and self.bn_scale == "exact":
            rest = signature.mean[gone] - c * signature.mean[kept[best]]
            constant = signature.gram.diagonal()[gone] <= 0  # a channel without weights is its mean, exactly
            exact = proportional(signature, gone, kept[best], c)
            offset[gone] = torch.where((carried & ~exact) | constant, rest, 0.0)
        return Merge(z, offset)


Pick = tuple["Tensor", "Tensor"]
"""Rows and columns (n − k,) of one candidate for each removed channel."""


def _exact_terms(s: Signature, gone: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Callable[[Pick], Tensor]]:
    """Cosine and normalised bias distance (n − k, k), at infinity where a candidate cannot carry; and the scale."""
    length = s.gram.diagonal().clamp_min(0).sqrt()
    own, theirs = length[gone], length[kept]
    cosine = between(s.gram, gone, kept).div_(own[:, None]).div_(theirs)

    def scale(pick: Pick) -> Tensor:
        return own[pick[0]] / theirs[pick[1]]

    if not s.normed:  # the distance counts for nothing
        return cosine, cosine, scale
    d = torch.outer(own, -s.bias[kept] / theirs).add_(s.bias[gone, None]).abs_()
    impossible = cosine <= 0
    if not bool((length > 0).all()):
        impossible |= (theirs <= 0) | cosine.isnan()
    return cosine, min_max(d, impossible), scale


def _published_terms(p: PublishedTerms, gone: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Callable[[Pick], Tensor]]:
    """The authors' terms, reproduced from the published tables: c = s·(γ_j/γ_i)·(σ_i/σ_j) with σ the variance."""
    length = p.gram.diagonal().clamp_min(0).sqrt()
    cosine = between(p.gram, gone, kept) / torch.outer(length[gone], length[kept])
    s = length[gone, None] / length[kept]
    scale = s * (p.gamma[kept] / p.gamma[gone, None]) * (p.var[gone, None] / p.var[kept])
    shift = (p.mean - p.var * p.beta / p.gamma)[gone, None]
    bias = (p.gamma / p.var)[kept] * (s * shift - p.mean[kept]) + p.beta[kept]
    distance = bias.abs() / scale
    return cosine, min_max(distance, distance.isnan()), scale.__getitem__


def min_max(x: Tensor, unknown: Tensor) -> Tensor:
    """Each row of ``x`` brought to 0 … 1, in place; if its values are all equal, to 0. The unknown become infinite."""
    high = x.masked_fill(unknown, -torch.inf).amax(dim=1, keepdim=True)
    low = x.masked_fill_(unknown, torch.inf).amin(dim=1, keepdim=True)
    some = high > low
    x.sub_(low).div_(high - low)
    return x if bool(some.all()) else torch.where(some, x, torch.where(unknown, torch.inf, 0.0))
