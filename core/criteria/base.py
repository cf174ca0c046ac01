"""What a criterion is given and what it returns, and the registry of them.

A criterion scores the channels of one channel set; the highest scores stay. Most look at each channel's own weights:

    @register_rows("l1")
    def l1(w: Tensor) -> Tensor:
        return torch.linalg.vector_norm(w, ord=1, dim=1)

One that looks at more is a function of the whole `ScoredSet`, and says so if it reads activations:

    @register("activity", needs_calibration=True)
    def activity(scored: ScoredSet) -> Tensor:
        return sum(consumer.energy() for consumer in scored.consumers)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from core.errors import UnseenInputError
from core.lazy import torch
from core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sensitivity:
    """How the loss on labelled images depends on a layer's rows.

    Attributes:
        products: (batches, m), per batch of images gradient · weight, summed over a row (and its bias).
        magnitude: (m,), |mean gradient · weight|, summed over a row.
    """

    products: Tensor
    magnitude: Tensor


@dataclass(frozen=True)
class Producer:
    """A layer that writes channels of a set.

    Attributes:
        name: of the layer.
        rows: W (m, fan_in); for a linear layer without batch norm the bias is the last column (methods.md, Notation).
        channel: (m,) the set's channel that each row writes, or -1 for one of another set.
        differentiate: gives the sensitivity of the loss to the rows; shared, computed when first asked.
    """

    name: str
    rows: Tensor
    channel: Tensor
    differentiate: Callable[[], Sensitivity]


@dataclass(frozen=True)
class Norm:
    """A norm with parameters of its own for the set's channels.

    Attributes:
        name: of its weight.
        gamma: (n,) scale; NaN for a channel that does not pass through it.
        beta: (n,) shift; NaN likewise, and where it has none.
        mean: (n,) running mean; NaN likewise.
        var: (n,) running variance; NaN likewise.
    """

    name: str
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class InputMoments:
    """What a layer reads on the calibration images in the original network.

    Attributes:
        count: rows seen: images times places of a convolution.
        mean: (groups, in·k) of the patches x that enter it.
        second: (groups, in·k, in·k), the mean of x·xᵀ.
        magnitude: (groups, in·k), the mean of |x|.
        active: (groups, in·k), the share of x that is not zero.
    """

    count: int
    mean: Tensor
    second: Tensor
    magnitude: Tensor
    active: Tensor


@dataclass(frozen=True)
class Consumer:
    """A layer that reads channels of a set.

    Attributes:
        name: of the layer.
        channel: (m,) the set's channels that it reads, increasing.
        weight: (m, out, p): for each of them the p columns that read it; out-channels of the channel's own group.
        group: (m,) of a grouped convolution, 0 otherwise.
        column: (m, p) where these columns are among the in·k of the group.
        biased: whether it has a bias of its own, or could have one, that takes up what a mean contributes.
        look: gives the moments of what the layer reads; shared by all criteria and trials, computed when first asked.
    """

    name: str
    channel: Tensor
    weight: Tensor
    group: Tensor
    column: Tensor
    biased: bool
    look: Callable[[], InputMoments]

    @property
    def moments(self) -> InputMoments:
        """Of what the layer reads.

        Raises:
            UsageError: there are no calibration images, or it is a layer whose input cannot be laid out in rows.
        """
        return self.look()

    def of_columns(self, values: Tensor) -> Tensor:
        """What belongs to the channels' columns, (m, p), of something (groups, in·k) from the moments."""
        return values[self.group[:, None], self.column]


@dataclass(frozen=True)
class ScoredSet:
    """One channel set of the original network, as a criterion sees it; every tensor is on the CPU.

    Attributes:
        name: of the set.
        size: n, its channels.
        producers: layers that write them; a gate (squeeze-excite) is none, since it scales nothing by its own size.
        find_norms: gives ``norms``.
        find_consumers: gives ``consumers``.
        seed: of random draws.
        paired: whether the producers' channels are multiplied, those of queries with those of keys, and not tied.
        notes: what a criterion could not do here, in words; it appends to them, and they end up in the set's report.
    """

    name: str
    size: int
    producers: tuple[Producer, ...]
    find_norms: Callable[[], Sequence[Norm]]
    find_consumers: Callable[[], Sequence[Consumer]]
    seed: int = 0
    paired: bool = False
    notes: list[str] = field(default_factory=list)

    @cached_property
    def norms(self) -> Sequence[Norm]:
        """The norms that the channels pass through."""
        return self.find_norms()

    @cached_property
    def consumers(self) -> Sequence[Consumer]:
        """The layers that read the channels."""
        return self.find_consumers()

    def over_producers(self, value: Callable[[Sensitivity], Tensor]) -> Tensor:
        """What the producers' rows are worth, (n,), from how the loss depends on them.

        Raises:
            UsageError: there are no calibration images with labels.
        """
        total = torch.zeros(self.size, dtype=torch.float64)
        for producer in self.producers:
            own, inside = value(producer.differentiate()).double(), producer.channel >= 0
            total.index_add_(0, producer.channel[inside], own[inside])
        return total

    def seen(self) -> list[Consumer]:
        """The consumers whose input can be looked at; of the others a note says why not.

        Raises:
            UsageError: there are no calibration images.
        """
        found = []
        for consumer in self.consumers:
            try:
                consumer.look()
            except UnseenInputError as error:
                self.notes.append(str(error).partition(";")[0])
            else:
                found.append(consumer)
        return found

    def instead(self, criterion: str, reason: str) -> Tensor:
        """The scores (n,) of another criterion, and a note that says so."""
        self.notes.append(f"{reason}: chosen by {criterion}")
        return CRITERIA.get(criterion).score(self)


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Attributes:
        score: scores (n,) of a set, higher = kept.
        needs_calibration: whether it asks consumers for their moments, so that images are required.
        needs_labels: whether it asks producers for the loss's gradients, so that labels are required too.
        random: whether it draws at random, so that the seed counts.
        cumulative: whether a score is what the set's readers have lost by the time the channel goes, where they can be
            looked at: the scores in order are then the set's error curve.
        rows: where it scores each row by itself: scores (m,) of rows (m, fan_in).
    """

    score: Callable[[ScoredSet], Tensor]
    needs_calibration: bool = False
    needs_labels: bool = False
    random: bool = False
    cumulative: bool = False
    rows: Callable[[Tensor], Tensor] | None = None


CRITERIA: Registry[Criterion] = Registry("criterion", "core.criteria")
SetScore = Callable[[ScoredSet], "Tensor"]
RowScore = Callable[["Tensor"], "Tensor"]


def register(
    name: str,
    *,
    needs_calibration: bool = False,
    needs_labels: bool = False,
    random: bool = False,
    cumulative: bool = False,
) -> Callable[[SetScore], SetScore]:
    """File a function of a `ScoredSet` as the criterion ``name``."""

    def file(score: SetScore) -> SetScore:
        CRITERIA.register(name)(Criterion(score, needs_calibration, needs_labels, random, cumulative))
        return score

    return file


def register_rows(name: str) -> Callable[[RowScore], RowScore]:
    """File a function of rows (m, fan_in) as the criterion ``name``."""

    def file(score: RowScore) -> RowScore:
        CRITERIA.register(name)(by_row(score))
        return score

    return file


def by_row(score: RowScore) -> Criterion:
    """The criterion that scores each producer's rows, brought to mean 1 where there are several, and adds them up.

    What is multiplied is worth the product: a pair of queries and keys stays the same if one of them is scaled up and
    the other down.
    """

    def of_set(scored: ScoredSet) -> Tensor:
        total = torch.zeros(scored.size, dtype=torch.float64)
        product = torch.ones_like(total)
        for producer in scored.producers:
            own = score(producer.rows).double()
            if len(scored.producers) > 1:
                own = own / own.mean().clamp_min(torch.finfo(own.dtype).tiny)
            inside = producer.channel >= 0
            total.index_add_(0, producer.channel[inside], own[inside])
            product[producer.channel[inside]] *= own[inside]
        return product if scored.paired else total

    return Criterion(of_set, rows=score)
