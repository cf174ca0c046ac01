"""Racing: a trial that cannot reach the front any more is not evaluated to the end (after Maron & Moore 1994).

All trials see the same N images in the same order (`image_order`): first a *probe*, n images drawn at random without
replacement; then the others, those first that the original network finds hardest. Let M be the number of images that
a trial gets right in the end, k what it got right of the n seen so far. Two bounds on M, ``at most U``:

* after the probe, k is hypergeometric, H(N, M, n), whatever the network. U is the largest M with P(K <= k | M) > error
  (the exact one-sided bound for a finite population; Buonaccorsi, The American Statistician 41, 1987). P(K <= k | M)
  falls in M, so U < M happens only where P(K <= k | M) <= error: with probability at most ``error``.
* after any other batch, U = k + (N - n): all the rest right. This is certain. It bites early since compressed networks
  err where the original is in doubt, and those images come first.

A trial stops when U is below the accuracy of a *rival*: a trial that was evaluated on all N images and has no more
parameters, MACs or bytes. It is dominated then, whichever of the three sizes is compared.

What is guaranteed. Fix a trial of the true front and the M it would reach. Every rival that is no larger has at most M
right, so the trial can only be stopped where U < M: after the probe with probability at most ``error`` over the
random draw, later never. This holds for every order of trials, number of workers and choice of rivals, since the event
U < M mentions none of them. So a front of F trials is complete with probability at least 1 - F·error: 99.9 % for ten
trials at the default 1e-4. ``error = 0`` makes it certain and costs images. A front over latency, which is measured
and not known beforehand, is not covered.

# NOTE: a random order throughout, with a sequential bound, was tried and rejected. On lenet-fashion-mnist a third of
# the trials ends within 12 images of a rival, which no sample short of nearly all images tells apart: with every rival
# known from the start it saved a factor of 1.9 to 2.3 (betting martingales on the difference to the original), the
# order above 3 to 4 with rivals that are only found on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import gammaln
from torch import Tensor

from core.measure import margins
from core.metrics import KNOWN_FRACTIONS
from core.pixels import in_order
from core.records import TrialRecord

if TYPE_CHECKING:
    from core.workbench import Workbench

Counts = np.typing.NDArray[np.int64]


class Rival(BaseModel):
    """What a fully evaluated trial reached.

    Attributes:
        accuracy: in percent.
        sizes: fractions left of the original that are known beforehand, in the order of `KNOWN_FRACTIONS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float
    sizes: tuple[float, ...]

    def no_larger(self, sizes: Mapping[str, float]) -> bool:
        """Whether none of the sizes exceeds that of ``sizes``."""
        return self._within(sizes[name] for name in KNOWN_FRACTIONS)

    def covers(self, other: Rival) -> bool:
        """Whether every trial that ``other`` beats is also beaten by this one."""
        return self.accuracy >= other.accuracy and self._within(other.sizes)

    def _within(self, sizes: Iterable[float]) -> bool:
        return all(own <= theirs for own, theirs in zip(self.sizes, sizes, strict=True))


class Race(BaseModel):
    """What one trial runs against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rivals: tuple[Rival, ...] = Field((), description="the front so far")
    error: float = Field(1e-4, ge=0.0, lt=1.0, description="probability of stopping a trial of the front")

    def lane(self, sizes: Mapping[str, float], total: int, probe: int = 0) -> Lane:
        """How one trial runs this race.

        Args:
            sizes: of its network, among them `KNOWN_FRACTIONS`.
            total: images of a full evaluation.
            probe: so many of the first ones are a random draw from all.
        """
        goal = max((rival.accuracy for rival in self.rivals if rival.no_larger(sizes)), default=None)
        return Lane(goal, total, probe, self.error)

    def after(self, record: TrialRecord) -> Race:
        """The race that the next trial runs, once ``record`` is known."""
        return self.model_copy(update={"rivals": add(self.rivals, record)})


@dataclass(frozen=True)
class Lane:
    """One trial in its race.

    Attributes:
        goal: the best accuracy (percent) known at the trial's sizes or smaller ones; None: nothing is known there.
        total: images of a full evaluation.
        probe: so many of the first ones are a random draw from all.
        error: probability that the bound after the probe fails.
    """

    goal: float | None
    total: int
    probe: int
    error: float

    def upper(self, right: int, seen: int) -> float:
        """Upper bound on the final accuracy in percent, ``right`` of the first ``seen`` images being right."""
        error = self.error if seen == self.probe else 0.0
        return 100 * most_right(right, seen, self.total, error) / self.total

    def beaten(self, right: int, seen: int) -> bool:
        """Whether the goal is out of reach. A trial that could still equal it is not beaten."""
        return self.goal is not None and self.upper(right, seen) < self.goal

    def bounds(self, right: Mapping[int, int]) -> dict[str, float]:
        """What is known of the accuracy after a stop; ``right`` as in `core.measure.Evaluation`.

        ``accuracy_upper`` is the bound, and ``accuracy_estimate`` the share of right images in the probe (without
        one, in what was seen), moved into what is still possible.
        """
        seen = max(right)
        drawn = self.probe if self.probe in right else seen
        least, most = 100 * right[seen] / self.total, self.upper(right[seen], seen)
        return {"accuracy_estimate": min(max(100 * right[drawn] / drawn, least), most), "accuracy_upper": most}

    def reason(self, right: Mapping[int, int]) -> str:
        """Why the trial stopped, in words."""
        seen = max(right)
        digits = math.ceil(math.log10(max(self.total, 100) / 100))
        sure = f" ({100 * (1 - self.error):.8g} % sure)" if seen == self.probe and self.error else ""
        most = f"at most {self.upper(right[seen], seen):.{digits}f} %{sure}"
        known = f"{self.goal:.{digits}f} % is known at this size or less"
        return f"beaten after {seen:,} of {self.total:,} images: {most}, where {known}"


def add(rivals: tuple[Rival, ...], record: TrialRecord) -> tuple[Rival, ...]:
    """``rivals`` and what ``record`` reached; only a finished record is a rival, and only the best ones stay.

    What an evaluator measured that knows nothing of single images is none: there is no race.
    """
    if record.status != "finished" or "accuracy" not in record.metrics:
        return rivals
    sizes = tuple(record.metrics[name] for name in KNOWN_FRACTIONS)
    return merge(rivals, [Rival(accuracy=record.metrics["accuracy"], sizes=sizes)])


def merge(rivals: tuple[Rival, ...], others: Iterable[Rival]) -> tuple[Rival, ...]:
    """All that are covered by no other one; of equals the first stays."""
    for new in others:
        if not any(known.covers(new) for known in rivals):
            rivals = (*(known for known in rivals if not new.covers(known)), new)
    return rivals


def rivals_of(records: Iterable[TrialRecord]) -> tuple[Rival, ...]:
    """The rivals that ``records`` of one original network and one set of images make."""
    rivals: tuple[Rival, ...] = ()
    for record in records:
        rivals = add(rivals, record)
    return rivals


def hardest_first(bench: Workbench, probe: int | None = None, seed: int = 0) -> Workbench:
    """``bench`` with its images in the order for racing (`image_order`).

    Args:
        bench: in any order; it is not changed.
        probe: images drawn at random; None: one batch, or none where that is more than a tenth of the images.
        seed: of the draw.
    """
    if probe is None:
        probe = bench.batch_size if 10 * bench.batch_size <= len(bench.images) else 0
    margin = margins(bench.model, bench.images, bench.labels, bench.batch_size, bench.device)
    order = image_order(margin, probe, torch.Generator().manual_seed(seed))
    reference = None if bench.reference is None else bench.reference[order]
    images = in_order(bench.images, order)
    return replace(bench, images=images, labels=bench.labels[order], probe=probe, reference=reference)


def image_order(margin: Tensor, probe: int, generator: torch.Generator) -> Tensor:
    """The order of evaluation: ``probe`` images at random, then the hardest first.

    Args:
        margin: (N,) of the original network: the logit of the true class less the largest other one.
        probe: images drawn without replacement, 0 to N.
        generator: of the draw.

    Returns:
        A permutation (N,) of the indices.
    """
    drawn = torch.randperm(len(margin), generator=generator)[:probe]
    hardest = margin.argsort(stable=True)
    return torch.cat([drawn, hardest[~torch.isin(hardest, drawn)]])


@lru_cache(maxsize=4096)
def most_right(right: int, seen: int, total: int, error: float) -> int:
    """Upper bound on the images that a network gets right of all ``total``, ``right`` of ``seen`` being so.

    With ``error`` 0 it is certain. Otherwise the images seen must be a random draw without replacement, and the bound
    fails with probability at most ``error`` (the module's docstring derives it).
    """
    low, high = right, total - (seen - right)
    while error > 0 and low < high:  # the largest M with P(K <= right | M) > error; `low` always is one
        middle = (low + high + 1) // 2
        if at_most(right, seen, middle, total) > error:
            low = middle
        else:
            high = middle - 1
    return high


def at_most(right: int, seen: int, positives: int, total: int) -> float:
    """P(K <= right) where K counts the positives among ``seen`` draws without replacement.

    K is hypergeometric: P(K = k) = C(M, k)·C(N - M, n - k) / C(N, n) with n ``seen`` draws from N ``total``, of which
    M are ``positives``.
    """
    k = np.arange(max(0, seen - (total - positives)), min(right, positives, seen) + 1)
    log = _log_choose(positives, k) + _log_choose(total - positives, seen - k) - _log_choose(total, seen)
    return min(1.0, float(np.exp(log).sum()))


def _log_choose(n: int, k: Counts | int) -> np.typing.NDArray[np.float64]:
    choices: np.typing.NDArray[np.float64] = gammaln(n + 1) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n, k) + 1)
    return choices
