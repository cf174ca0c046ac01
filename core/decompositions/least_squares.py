r"""``least-squares``: refit every consumer, in topological order, to the outputs it had in the original network.

With x the patches that enter the consumer in the already compressed network and T its pre-activation outputs in the
original one (both seen on unlabelled calibration images),

    V* = V_K + (Cov(T, x) − V_K·Cov(x))(Cov(x) + a·I)⁻¹,    b* = T̄ − V*·x̄,
    a = damping·(1 + 600·in/rows)·mean diag Cov(x),

the ridge solution drawn towards V_K, the kept weights with the removed channels merged in (``most-similar``). Behind a
residual sum T also absorbs what the skip connection has lost, T += skip_original − skip_compressed. Depthwise and
grouped layers are solved group by group. In the family of ThiNet (2017), He et al. (2017) and OSSCAR (2024); needs no
labels, no gradient and works for every activation. The strongest method here; it costs one solve of size
in-channels·k² per layer. Activations beyond a fixed amount are not kept but computed anew, see `core.refit`.

Of a transposed convolution the patches are the taps that reach an output; of a layer that is used at several places
those of all places are stacked. A layer whose rows times its weight are not what it gives keeps V_K, and says so; so
does one that reads what it has written itself.

A linear layer sees one row per image, so a few hundred images are few for it: a grows with in/rows, and where only
such layers are refitted the images are stretched by mixing pairs of them, x = (1 − l)·x₁ + l·x₂ with l ~ U(0, ½)
(Zhang et al., mixup, ICLR 2018). No label is needed: the original network says what each mixture should give.
Convolutions see thousands of patches per image; mixing changes nothing for them but the time, so they go without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from core.decompositions.base import Decomposition, Merge, register
from core.decompositions.most_similar import MostSimilar
from core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from core.moments import Moments
    from core.signature import Signature

Damping = Annotated[float, Field(gt=0.0, le=10.0)]
USUAL, FLAT = 1e-4, 2e-3
"""Damping where it is left to us; measured, see docs/methods.md."""
CONSTANT = 1e-10
"""An input whose variance is at most this share of its mean square does not vary: its weights stay V_K."""


@register("least-squares")
class LeastSquares(Decomposition):
    """Refit the consumers on calibration images."""

    needs_calibration: ClassVar[bool] = True
    sequential: ClassVar[bool] = True

    damping: Damping | Literal["auto"] = Field(
        "auto",
        description="ridge, as a share of the mean variance of the inputs; auto: "
        f"{USUAL:g}, and {FLAT:g} where all layers to refit see one row per image",
    )
    prior_threshold: float = Field(0.45, ge=-1.0, le=1.0, description="threshold of the merge behind V_K; 1: no merge")
    mixed_to: int = Field(1024, ge=0, description="mix calibration images up to this many; 0: no mixing")
    rectified: int = Field(
        0, ge=0, le=20, description="fit so many times again, to what the ReLU behind a layer lets through"
    )

    @property
    def rectified_fits(self) -> int:
        """As the option says."""
        return self.rectified

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return the data-free merge that the solution is drawn towards."""
        return MostSimilar(threshold=self.prior_threshold).merge(signature, kept)

    def stretch(self, images: Tensor) -> Tensor:
        """Return ``images`` (N, …) followed by mixtures of them, ``mixed_to`` in all if they stay below 4 M numbers."""
        count = len(images)
        rounds = min(self.mixed_to, int(4e6) // max(1, images[0].numel())) // max(1, count) - 1
        generator, mixed = torch.Generator().manual_seed(0), [images]
        for _ in range(rounds):
            other = images[torch.randperm(count, generator=generator)]
            share = torch.rand(count, *[1] * (images.dim() - 1), generator=generator).to(images) * 0.5
            mixed.append((1 - share) * images + share * other)
        return torch.cat(mixed)

    def solve(self, moments: Moments, kept_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return V* (groups, out, in) and b* (groups, out) for ``moments`` and V_K (groups, out, in)."""
        cov_x, cov_tx = moments.covariances()
        size, prior = cov_x.shape[-1], kept_weight.to(cov_x.dtype)
        var = cov_x.diagonal(dim1=1, dim2=2)
        varies = var > CONSTANT * (var + moments.x_mean.square())
        both = varies[:, :, None] & varies[:, None, :]
        few = 1 + 600 * size / moments.count
        damping = (FLAT if moments.flat else USUAL) if self.damping == "auto" else self.damping
        a = damping * few * var.mean(1)[:, None, None]
        eye = torch.eye(size, dtype=cov_x.dtype, device=cov_x.device)
        left = torch.where(both, cov_x + a * eye, eye)
        rest = torch.where(varies[:, None, :], cov_tx - prior @ cov_x, 0.0)
        step = torch.linalg.solve_ex(left, rest.mT)[0].mT
        v = prior + torch.where(step.isfinite().all(dim=(1, 2), keepdim=True), step, 0.0)
        return v, moments.t_mean - (v @ moments.x_mean[:, :, None]).squeeze(2)
