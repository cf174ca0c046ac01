"""What it costs to remove channels, measured on calibration images: error curves, their effect, and whole networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.channels import Channels, ChannelSet
from core.footprint import Footprint, Size, footprint
from core.graph.trace import as_inputs, twin, undisturbed
from core.outputs import are_logits, real_pairs
from core.selection import keep

JUDGED = 4
"""One of so many calibration images is not fitted on, and judges."""


@dataclass
class Appraisal:
    """The price of every set's channels under one criterion and one decomposition.

    Attributes:
        channels: of the original network.
        sets: those that may be cut.
        scores: (n,) per set.
        curves: per set, what its readers lose once its 0, 1, … n lowest channels are gone, (n + 1,), never falling.
        attempt: (kept channels by set, images to fit on) -> the network that this leaves.
        calibration: inputs (N, …), or a tuple of them.
        gains: whether layers may get a bias (see `core.footprint.footprint`).
        once: (makes a number, what it is of) -> the number, made now or before.
        logits: whether outputs (N, k) are logits, k > 1.
    """

    channels: Channels
    sets: Sequence[ChannelSet]
    scores: Sequence[Tensor]
    curves: Sequence[np.ndarray]
    attempt: Callable[[Mapping[str, Tensor], Any], nn.Module]
    calibration: Any
    gains: bool = False
    once: Callable[[Callable[[], float], str], float] = lambda make, what: make()
    logits: bool = True
    _footprints: dict[Size, Footprint] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """How many channels each set gains or loses at a time: one in every block."""
        return [1 if s.blocks is None else int(s.blocks.max()) + 1 for s in self.sets]

    def footprint(self, of: Size) -> Footprint:
        """How a size of the network depends on the sets' widths."""
        if of not in self._footprints:
            example = tuple(x[:1] for x in as_inputs(self.calibration))
            self._footprints[of] = footprint(self.channels, self.sets, example, of, gains=self.gains)
        return self._footprints[of]

    @cached_property
    def effects(self) -> list[float]:
        """Per set, how far half of it takes the network's outputs, over what its curve says of that half."""
        found = []
        for number, own in enumerate(self.sets):
            half = keep(self.channels, own, self.scores[number], 0.5)
            lost = float(self.curves[number][own.size - len(half)])
            away = self.once(partial(self._away, {own.name: half}), f"half of {own.name}")
            found.append(max(away, 1e-12) / max(lost, 1e-12))
        return found

    def divergence(self, widths: np.ndarray) -> float:
        """How far the outputs are from the original's at these widths (S,), on images that were not fitted on."""
        shares = [1 - float(w) / own.size for w, own in zip(widths, self.sets, strict=True)]
        every = zip(self.sets, self.scores, shares, strict=True)
        kept = {own.name: keep(self.channels, own, scores, share) for own, scores, share in every}
        return self.once(partial(self._away, kept), f"widths {widths.tolist()}")

    @cached_property
    def _split(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Images to fit on and images to judge by; the same ones where there are too few to split."""
        inputs = as_inputs(self.calibration)
        apart = len(inputs[0]) // JUDGED
        if apart == 0:
            return inputs, inputs
        return tuple(x[:-apart] for x in inputs), tuple(x[-apart:] for x in inputs)

    @cached_property
    def _wanted(self) -> Any:
        return self._outputs(self.channels.graph.model)

    def _away(self, kept: Mapping[str, Tensor]) -> float:
        fitted = self._split[0]
        outputs = self._outputs(self.attempt(kept, fitted if len(fitted) > 1 else fitted[0]))
        return distance(self._wanted, outputs, logits=self.logits)

    def _outputs(self, model: nn.Module) -> Any:
        with torch.no_grad(), undisturbed(self.channels.graph.model):
            return twin(model)(*self._split[1])


def distance(originals: Any, outputs: Any, *, logits: bool = True) -> float:
    """How far outputs are from the original ones, 0 for none.

    Logits (N, classes): the mean Kullback-Leibler divergence, nats. Everything else that is real: the share of its
    variance that is lost. Not finite: infinite.
    """
    total = 0.0
    for a, b in real_pairs(originals, outputs):
        a, b = a.double(), b.double()
        if logits and are_logits(a):
            away = F.kl_div(b.log_softmax(1), a.log_softmax(1), reduction="batchmean", log_target=True)
        else:
            away = (a - b).square().sum() / (a - a.mean(0)).square().sum().clamp_min(1e-300)
        total += float(away)
    return total if np.isfinite(total) else float("inf")
