r"""``ridge``: each removed channel as a ridge combination of all kept ones (LBYL).

Kim et al., "Leave Before You Leave", 2022: where a removed channel i is replaced by Σ_j s_j·h_j, the error at the
consumer has three parts: what the rows lose, ‖A_i − s·A_K‖²; what the batch norm's constants lose, (b_i − s·b_K)²; and
what is lost because the activation does not commute with a sum, which grows with ‖s‖². Their weighted sum has the
closed form

    s = H_iK (H_KK + damping·mean diag H_KK·I)⁻¹,    H = AAᵀ + bias_weight·bbᵀ,

with A and b the effective rows and constants behind the batch norm; without one the bias is a column of A. What is left
of the mean goes into the consumer's bias, as in ``most-similar``. Data-free; everything from inner products.

The authors' code does other than this: it fits an intercept over a row's weights on linear layers, which is worth a
point at 80 % of LeNet-300-100, and leaves out the channels' γ/std behind a batch norm (docs/proof.md).

The bias term does not pay here: the repaired mean already does its work (VGG-like net at ratio 0.3: 80.3 % without,
74.1 % with weight 1), so ``bias_weight`` is 0 unless asked for. Unlike ``nmf``'s dense combinations these are kept
small, which is why they survive the ReLU of LeNet-300-100; behind batch norm and past half the channels they do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, carried_exactly, register
from core.decompositions.gram import regression
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.signature import Signature


@register("ridge")
class Ridge(Decomposition):
    """Signed combinations of all kept rows, kept small."""

    damping: float = Field(0.3, ge=1e-6, le=10.0, description="ridge, as a share of the rows' mean squared norm")
    bias_weight: float = Field(0.0, ge=0.0, le=1e3, description="weight of what a batch norm's constants lose")

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return Z (n, k) and the offset (n,)."""
        h = signature.gram + self.bias_weight * torch.outer(signature.bias, signature.bias)
        z = regression(h, kept, self.damping)
        offset = torch.zeros(len(z), dtype=z.dtype)
        if signature.mean is not None:
            rest = signature.mean - z @ signature.mean[kept]
            offset = torch.where(carried_exactly(signature, z, kept), 0.0, rest)
        return Merge(z, offset)
