r"""``gaussian``: the regression of ``gram`` without images, on second moments that follow from the weights.

A batch norm knows of each channel y_i ~ N(β_i, γ_i²). Were its inputs white, the correlation of y_i and y_j would be
the cosine of their rows, ρ_ij = ⟨w_i, w_j⟩/(‖w_i‖‖w_j‖), with the sign of γ_i·γ_j. Taken to be jointly normal, they
pass the activation φ in closed form (`core.gaussian`): C = Cov(φ(y_i), φ(y_j)), m = E[φ(y)]. Then, as in ``gram``,

    B = G_RK (G_KK + a·I)⁻¹,    G = C + mmᵀ,

or with ``affine`` C in place of G and the offset m_R − B·m_K. Through sums the covariances add up as if the branches
were independent, through depthwise layers as if no two places had to do with each other. Pooling is not followed.

Without a batch norm the producer's inputs are taken to have mean zero and variance one. That is right at a network's
first layer and wrong behind a ReLU: on LeNet-300-100 the method is level with ``ridge`` up to ratio 0.7 and falls
behind at 0.8. Where moments do not follow (behind a layer norm, a product, a slope per channel), the channels are
merged as ``most-similar`` does and the set's note says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, register
from core.decompositions.gram import instead, regression
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import Signature


@register("gaussian")
class Gaussian(Decomposition):
    """Regress the removed channels on the kept ones, on assumed covariances."""

    needs_covariance: ClassVar[bool] = True

    damping: float = Field(1e-2, ge=1e-6, le=10.0, description="ridge, as a share of the mean variance of the channels")
    affine: bool = Field(False, description="fit around the means, and let the consumer's bias take them up")

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return B (n, k), identity on the kept channels, and the offset (n,)."""
        if signature.covariance is None or signature.mean is None:
            return instead(signature, kept, "its channels' moments do not follow from the weights")
        mean = signature.mean
        if not self.affine:
            second = signature.covariance + torch.outer(mean, mean)
            return Merge(regression(second, kept, self.damping), torch.zeros_like(mean))
        b = regression(signature.covariance, kept, self.damping)
        return Merge(b, mean - b @ mean[kept])
