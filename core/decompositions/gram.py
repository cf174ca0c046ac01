r"""``gram``: the removed channels as a regression on the kept ones, fitted to what each consumer reads on images.

After GRAIL (2026), on channels. With G = E[hhᵀ] over the channels h that enter a consumer in the original network,

    h_R ≈ B·h_K,    B = G_RK (G_KK + a·I)⁻¹,    a = damping·mean diag G_KK,

so the consumer becomes V_K + V_R·B. With ``affine`` the covariance stands in place of G, and an offset m_R − B·m_K (m =
E[h]) goes into the consumer's bias; a consumer without a bias of its own gets the plain form. Nothing is assumed about
the activation. G is averaged over the taps of a convolution and, behind a flatten, over places; for a grouped consumer
it is solved group by group.

``affine`` is nearer to each layer's outputs, and better up to ratio 0.3. Where much is cut in many layers it may be the
worse network: a regression around the mean shrinks what it cannot predict to a constant, and the next layer's inputs
vary less than they did. At ratio 0.5 a VGG-like net loses 3 points by it and a residual net gains 11; at 0.7 the first
falls from 45 % to 14 %, which is why it is off by default.

``least-squares`` does more with the same images: a coefficient per tap instead of one per channel, fitted to what
really enters the consumer once the layers before it are cut. This one is what merging alone can do, one solve of size
k per consumer, independent of the order of the layers. It costs the same pass over the images as a criterion that
looks at them, and shares it. Where a consumer's input cannot be laid out in rows (a transposed convolution), the
channels are merged as ``most-similar`` does and the set's note says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from core.decompositions.base import ChannelMoments, Decomposition, Merge, plain, register, removed
from core.decompositions.most_similar import MostSimilar
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import Signature


@register("gram")
class Gram(Decomposition):
    """Regress the removed channels on the kept ones, on calibration images."""

    needs_calibration: ClassVar[bool] = True
    needs_moments: ClassVar[bool] = True

    damping: float = Field(1e-2, ge=1e-6, le=10.0, description="ridge, as a share of the mean variance of the inputs")
    affine: bool = Field(False, description="fit around the means, and let the consumer's bias take them up")

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return the data-free merge that stands in where a consumer's input is not known."""
        return instead(signature, kept, "its input cannot be laid out in rows")

    def merge_seen(self, signature: Signature, kept: Tensor, moments: ChannelMoments | None) -> Merge:
        """Return B (n, k), identity on the kept channels, and the offset (n,)."""
        if moments is None:
            return self.merge(signature, kept)
        if not self.affine:
            return Merge(regression(moments.second, kept, self.damping), torch.zeros_like(moments.mean))
        b = regression(moments.covariance, kept, self.damping)
        return Merge(b, moments.mean - b @ moments.mean[kept])


def regression(g: Tensor, kept: Tensor, damping: float) -> Tensor:
    """B (n, k) = G_RK (G_KK + a·I)⁻¹ on the removed channels, the identity on the kept ones."""
    b, gone, own = plain(len(g), kept).z, removed(len(g), kept), g[kept][:, kept]
    varies = int((own.diagonal() > 0).sum())
    if varies == 0:
        return b
    a = damping * own.diagonal().sum() / varies
    b[gone] = torch.linalg.solve(own + a * torch.eye(len(kept), dtype=g.dtype), g[kept][:, gone]).T
    return b


def instead(signature: Signature, kept: Tensor, reason: str) -> Merge:
    """The merge of ``most-similar``, with a note."""
    return replace(MostSimilar().merge(signature, kept), note=f"{reason}: merged as most-similar does")
