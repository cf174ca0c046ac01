r"""``folding``: clusters of channels, each represented by its centroid (Wang et al., Model Folding, ICLR 2025).

k-means on the channels' rows with as many clusters as channels are kept, started from the kept ones, so that nothing
is drawn at random. A cluster S becomes one channel with the row r = mean_{i ∈ S} A_i, and the consumer sums over S.

Rows that differ cancel in a mean, ‖r‖ < mean ‖A_i‖, and with them the variance of everything behind. ``repair``
rescales r to the mean norm of its members (the data-free form of the paper's Fold-AR), by at most √|S|, which is what
rows that have nothing to do with each other need.

``scales`` goes beyond the paper: rows that are proportional count as equal. Directions A_i/‖A_i‖ are clustered, each
weighted by its energy ‖A_i‖², so that r is the mean of A_i weighted by ‖A_i‖, and behind a positively homogeneous
activation a member enters the sum with Z_i = ‖A_i‖ over the cluster's mean norm (without ``repair`` with its
least-squares coefficient ⟨A_i, r⟩/‖r‖²). Without ``scales`` Z_i = 1.

``linkage`` ``ward`` starts from single channels and unites, again and again, the two clusters whose union loses least
(the authors' code can do either). Channels that are like no other then stay alone, which pays up to half the channels.

Centroids need rows of their own: one producer, read as it is. Elsewhere (residual sums, depthwise layers, blocks) each
kept channel stays in its cluster and stands for it, and the set's note says so. Everything is computed from the inner
products G = AAᵀ, with A = γ/std·W behind a batch norm and the bias as a last column without one: with R = P·A the
squared distance of row i to centroid c is G_ii − 2(GPᵀ)_ic + (PGPᵀ)_cc.

On LeNet-300-100 each of ``scales`` and ``repair`` is worth up to a point, and ``nmf`` with free, hard rows stays ahead.
On a VGG-like net with batch norm it is the best data-free method from half the channels on, without being good there
(57.4 % at 0.5), and ``repair`` is most of it. Through residual sums, where kept channels have to stand for clusters, it
does little more than ``most-similar``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, carried_exactly, plain, register, removed
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import Signature

TINY = 1e-12


@register("folding")
class Folding(Decomposition):
    """Cluster the channels and keep the centroids."""

    scales: bool = Field(True, description="cluster directions, and let each member keep its own scale")
    repair: bool = Field(True, description="give a centroid the norm that its members have on average")
    iterations: int = Field(30, ge=0, le=10000, description="of k-means, at most")
    linkage: Literal["k-means", "ward"] = Field(
        "k-means", description="how centroids are found; ward: from the bottom up"
    )
    centroids: bool = Field(True, description="replace the kept rows; off: each kept channel stands for its cluster")

    def for_set(self, *, single: bool) -> tuple[Decomposition, str]:
        """Centroids need one producer read as it is; elsewhere a kept channel stands for its cluster."""
        if single or not self.centroids:
            return self, ""
        standing = self.model_copy(update={"centroids": False})
        return standing, "centroids need a single producer: a kept channel stands for each cluster"

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return Z (n, k), the offset (n,), and P (k, n) with the centroids R = P·A."""
        gram = signature.gram
        length = gram.diagonal().clamp_min(0).sqrt()
        rows = directions(gram, length) if self.scales else gram
        weight = length**2 if self.scales else (length > 0).to(length.dtype)
        if self.linkage == "ward" and self.centroids:
            labels = ward(rows, weight, len(kept))
        else:
            labels = clusters(rows, weight, kept, self.iterations, pinned=not self.centroids)
        member = torch.nn.functional.one_hot(labels, len(kept)).T.to(gram.dtype)  # (k, n)
        if not self.centroids:
            return self.onto_kept(signature, gram, labels, kept)
        p, norm = self.representatives(gram, member)
        z = member.T * self.coefficients(gram, p, labels, norm)[:, None]
        offset = torch.zeros_like(length)
        if signature.mean is not None:
            offset = torch.where(length > 0, offset, signature.mean)  # a channel without weights is its mean
        return Merge(z, offset, p)

    def representatives(self, gram: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
        """P (k, n), one centroid a row, and their norms (k,)."""
        length, count = gram.diagonal().clamp_min(0).sqrt(), member.sum(1)
        p = member * (length if self.scales else length > 0)
        p = p / p.sum(1, keepdim=True).clamp_min(TINY)
        norm = ((p @ gram) * p).sum(1).clamp_min(0).sqrt()
        if not self.repair:
            return p, norm
        wanted = member @ length / (member @ (length > 0).to(length.dtype)).clamp_min(1)
        return p * torch.minimum(wanted / norm.clamp_min(TINY), count.sqrt())[:, None], wanted

    def onto_kept(self, signature: Signature, gram: Tensor, labels: Tensor, kept: Tensor) -> Merge:
        """The merge in which the kept channels stand for their clusters."""
        p = plain(len(gram), kept).z.T
        norm = gram.diagonal()[kept].clamp_min(0).sqrt()
        z = torch.nn.functional.one_hot(labels, len(kept)) * self.coefficients(gram, p, labels, norm)[:, None]
        z[kept] = torch.eye(len(kept), dtype=z.dtype)
        offset = torch.zeros_like(signature.bias)
        if signature.mean is not None:
            rest = signature.mean - z @ signature.mean[kept]
            offset = torch.where(carried_exactly(signature, z, kept), 0.0, rest)
        return Merge(z, offset)

    def coefficients(self, gram: Tensor, p: Tensor, labels: Tensor, norm: Tensor) -> Tensor:
        """How much (n,) of its cluster's representative each channel is."""
        if not self.scales:
            return (gram.diagonal() > 0).to(gram.dtype)
        own, length = norm[labels], gram.diagonal().clamp_min(0).sqrt()
        if self.repair:
            return torch.where(own > 0, length / own.clamp_min(TINY), 0.0)
        inner = (gram @ p.T).gather(1, labels[:, None]).flatten()
        return inner.clamp_min(0) / own.clamp_min(1e-3 * length).clamp_min(TINY) ** 2


def directions(gram: Tensor, length: Tensor) -> Tensor:
    """Inner products of the rows brought to length 1; those of a row of zeros are 0."""
    inverse = torch.where(length > 0, 1 / length.clamp_min(torch.finfo(length.dtype).tiny), 0.0)
    return gram * torch.outer(inverse, inverse)


def clusters(gram: Tensor, weight: Tensor, kept: Tensor, iterations: int, *, pinned: bool) -> Tensor:
    """The cluster (n,) of each channel, of as many as are ``kept``, after k-means from the kept rows.

    Args:
        gram: (n, n) inner products of what is clustered.
        weight: (n,) of each row in its centre.
        kept: (k,) where the centres begin.
        iterations: at most.
        pinned: whether each kept channel stays in the cluster that it began.
    """
    n, k = len(gram), len(kept)
    p, labels = plain(n, kept).z.T, torch.full((n,), -1)
    for _ in range(iterations + 1):
        cross = gram @ p.T
        square = (p @ cross).diagonal()
        distance = square - 2 * cross + gram.diagonal()[:, None]
        distance[:, square <= 0] = torch.inf  # a row of zeros attracts nobody
        new = distance.argmin(1)
        if pinned:
            new[kept] = torch.arange(k)
        new = without_empty(new, distance, weight, k)
        if torch.equal(new, labels):
            break
        labels = new
        p = torch.nn.functional.one_hot(labels, k).T * weight
        p = p / p.sum(1, keepdim=True).clamp_min(TINY)
    return labels


def ward(gram: Tensor, weight: Tensor, k: int) -> Tensor:
    """The cluster (n,) of each channel, of ``k``: from the bottom up, always the two whose union loses least.

    What is lost by the union of clusters a and b is w_a·w_b/(w_a + w_b)·‖c_a − c_b‖² (Ward 1963), which is updated by
    the formula of Lance and Williams; ``gram`` (n, n) and ``weight`` (n,) as for `clusters`. O(n²) for each union.
    """
    n, w = len(gram), weight.clamp_min(TINY).clone()
    square = gram.diagonal()
    lost = (square[:, None] + square - 2 * gram).clamp_min_(0) * (w[:, None] * w / (w[:, None] + w))
    lost.fill_diagonal_(torch.inf)
    labels = torch.arange(n)
    for _ in range(n - k):
        a, b = divmod(int(lost.argmin()), n)
        new = ((w[a] + w) * lost[a] + (w[b] + w) * lost[b] - w * lost[a, b]) / (w[a] + w[b] + w)
        new[a] = torch.inf
        lost[a], lost[:, a] = new, new
        lost[b], lost[:, b] = torch.inf, torch.inf
        w[a] += w[b]
        labels[labels == b] = a
    found: Tensor = torch.unique(labels, return_inverse=True)[1]
    return found


def without_empty(labels: Tensor, distance: Tensor, weight: Tensor, k: int) -> Tensor:
    """Each empty cluster gets the channel that loses most in its own: none that is alone there or has no weights."""
    for empty in removed(k, torch.unique(labels)).tolist():
        lost = distance.gather(1, labels[:, None]).flatten() * weight
        fixed = (torch.bincount(labels, minlength=k)[labels] < 2) | (weight <= 0)
        labels = labels.clone()
        labels[lost.masked_fill(fixed, -torch.inf).argmax()] = empty
    return labels
