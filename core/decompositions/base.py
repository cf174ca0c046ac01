"""The base class of decompositions, what they return, and the registry of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from core.lazy import torch
from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from core.moments import Moments
    from core.signature import Signature


@dataclass(frozen=True)
class Merge:
    """How a consumer makes up for removed channels: h ≈ Z·h_K, and what is left of the mean goes to its bias.

    Attributes:
        z: (n, k) scale matrix; rows of kept channels are the identity unless ``rows`` says otherwise.
        offset: (n,) expected part of each channel that Z does not carry; the consumer's bias gains V·offset.
        rows: (k, n) new producers' rows as combinations of the original ones, or None where the kept rows stay.
        note: anything the method could not do for this consumer, in words.
    """

    z: Tensor
    offset: Tensor
    rows: Tensor | None = None
    note: str = ""


@dataclass(frozen=True)
class ChannelMoments:
    """What a consumer reads of a set's channels h on calibration images, in the original network; float64.

    Attributes:
        mean: (n,) of each channel; zero where the consumer has no bias that could take up a mean.
        second: (n, n), the mean of h·hᵀ; zero for a channel that this consumer does not read.
    """

    mean: Tensor
    second: Tensor

    def take(self, index: Tensor) -> ChannelMoments:
        """The moments of some of the channels."""
        return ChannelMoments(self.mean[index], self.second[index][:, index])

    @property
    def covariance(self) -> Tensor:
        """(n, n), around ``mean``."""
        return self.second - torch.outer(self.mean, self.mean)


class Decomposition(BaseModel):
    """A way to make up for removed channels; a subclass's fields are its options, with bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs_calibration: ClassVar[bool] = False
    """Whether the method reads activations, so that calibration images are required."""
    sequential: ClassVar[bool] = False
    """Whether consumers are refitted one after the other in the compressed network (then `solve` is called)."""
    needs_moments: ClassVar[bool] = False
    """Whether `merge_seen` looks at the moments of the channels that a consumer reads."""
    needs_covariance: ClassVar[bool] = False
    """Whether `merge` looks at the signature's assumed ``covariance``, which is only followed where it is asked for."""

    merges: ClassVar[bool] = True
    """Whether `merge` does more than select the kept channels."""

    bn_recalibrate: bool = Field(False, description="reset batch-norm statistics on the calibration images")
    bn_shrinkage: float = Field(0.0, ge=0.0, description="the old statistics count for so many calibration images")
    decoupling: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="what is left of convolutions as depthwise and pointwise ones: 0, none, to 1, the fewest weights",
    )

    def merge(self, signature: Signature, kept: Tensor) -> Merge:
        """Return the merge of one set's channels, as one consumer sees them, onto the ``kept`` ones (k,)."""
        return plain(len(signature.gram), kept)

    def merge_seen(self, signature: Signature, kept: Tensor, moments: ChannelMoments | None) -> Merge:
        """Return the same where the consumer's ``moments`` are at hand: for a method that ``needs_moments``.

        They are None where what the consumer reads cannot be laid out in rows.
        """
        return self.merge(signature, kept)

    def for_set(self, *, single: bool) -> tuple[Decomposition, str]:
        """The method as it applies to a set, and a note if it differs; ``single``: one producer, no depthwise layer."""
        return self, ""

    def stretch(self, images: Tensor) -> Tensor:
        """Return the calibration images (N, …) that a ``sequential`` method really uses."""
        return images

    @property
    def rectified_fits(self) -> int:
        """How often a ``sequential`` method fits a layer again, to what a ReLU behind it lets through."""
        return 0

    def solve(self, moments: Moments, kept_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's new weight (groups, out, in) and bias (groups, out), for a ``sequential`` method.

        Raises:
            TypeError: the method is not sequential.
        """
        raise TypeError(f"{type(self).__name__} is not sequential")


def plain(size: int, kept: Tensor) -> Merge:
    """Removal without compensation: Z is the selection of the kept channels."""
    z = torch.zeros(size, len(kept), dtype=torch.float64)
    z[kept, torch.arange(len(kept))] = 1.0
    return Merge(z, torch.zeros(size, dtype=torch.float64))


def carried_exactly(signature: Signature, z: Tensor, kept: Tensor) -> Tensor:
    """Which channels (n,) one kept channel carries without any loss: they are proportional, constants included.

    Nothing is left for a bias then, whatever mean a batch norm's statistics (which may be those of another network,
    or none yet) say.
    """
    single = (z != 0).sum(1) <= 1
    rows, column = torch.arange(len(z)), z.abs().argmax(1)  # of those that several carry, nothing more is asked
    return single & proportional(signature, rows, kept[column], z[rows, column])


def proportional(signature: Signature, rows: Tensor, carriers: Tensor, c: Tensor) -> Tensor:
    """Which channels ``rows`` (m,) are ``c`` (m,) times their ``carriers`` (m,), constants included, (m,)."""
    b = signature.bias
    own = signature.gram.diagonal() + b * b
    lost = own[rows] - 2 * c * (signature.gram[rows, carriers] + b[rows] * b[carriers]) + c * c * own[carriers]
    exact = lost <= 1e-9 * own[rows]
    return exact & ((c - 1).abs() < 1e-6) if signature.approximate else exact


def between(gram: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The block (r, c) of a matrix; several times as fast as two lists of indices in brackets."""
    return gram.index_select(0, rows).index_select(1, columns)


def removed(size: int, kept: Tensor) -> Tensor:
    """The indices (n − k,) that are not kept."""
    gone = torch.ones(size, dtype=torch.bool)
    gone[kept] = False
    return gone.nonzero().flatten()


DECOMPOSITIONS: Registry[type[Decomposition]] = Registry("decomposition", "core.decompositions")
register = DECOMPOSITIONS.register
