"""Batch norms whose running statistics are measured anew on calibration images, drawn towards what they were.

Each norm's statistics are those of its inputs over all images, in a network whose earlier norms have theirs already:
what the network sees in use. Images that do not run together are run in batches, once for each norm.

With n images, new = (1 − s)·measured + s·old and s = shrinkage / (shrinkage + n): so many images the old statistics
count for (the posterior mean of a conjugate prior; for batch norms Schneider et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.graph.trace import as_inputs, twin


class _EnoughError(Exception):
    """The rest of the network need not be run."""


def recalibrate(model: nn.Module, calibration: Any, shrinkage: float = 0.0, at_a_time: int | None = None) -> None:
    """Set every batch norm's running statistics to those of the calibration images, in place.

    Args:
        model: the network.
        calibration: inputs (N, …), a tuple of them for a network with several inputs.
        shrinkage: so many images the old statistics count for.
        at_a_time: so many images run together; None: all.
    """
    inputs, run = as_inputs(calibration), twin(model)
    count = len(inputs[0])
    step = at_a_time or count
    parts = [tuple(x[start : start + step] for x in inputs) for start in range(0, count, step)]
    names = [name for name, m in run.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    measure = _Measure([run.get_submodule(n) for n in names], shrinkage / (shrinkage + count), len(parts))
    with torch.no_grad():
        while not measure.done:
            for part in parts:
                measure.run(run, part)
    for name in names:
        mine, found = (_statistics(which.get_submodule(name)) for which in (model, run))
        for own, value in zip(mine, found, strict=True):
            own.copy_(value)


class _Measure:
    """Each time that a batch norm is called, in the order of the network, its inputs' moments over all images.

    Args:
        norms: of a network to run.
        share: s, what the old statistics count for.
        parts: number of batches that all images are.
    """

    def __init__(self, norms: Sequence[nn.Module], share: float, parts: int) -> None:
        self.done, self._share, self._parts, self._seen, self._at = False, share, parts, 0, 0
        self._old = {norm: [part.double() for part in _statistics(norm)] for norm in norms}
        self._measured: dict[nn.Module, list[Sequence[Tensor]]] = {norm: [] for norm in norms}
        self._known: list[Sequence[Tensor]] = []  # of each call
        self._sums = _Sums()
        for norm in norms:
            norm.register_forward_pre_hook(self._before)

    def run(self, model: nn.Module, part: tuple[Any, ...]) -> None:
        """Run one batch up to the first call of a norm that has not been measured on all batches."""
        self._at = 0
        try:
            model(*part)
        except _EnoughError:
            return
        self.done = True

    def _before(self, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        if self._at == len(self._known):
            self._sums.add(given[0].movedim(1, -1).flatten(0, -2))
            self._seen += 1
            if self._seen == self._parts:
                self._known.append(self._settled(norm))
                self._seen, self._sums = 0, _Sums()
            if self._parts > 1:
                raise _EnoughError
        for own, value in zip(_statistics(norm), self._known[self._at], strict=True):
            own.copy_(value)
        self._at += 1

    def _settled(self, norm: nn.Module) -> Sequence[Tensor]:
        """The mean over a norm's calls so far, drawn towards the old statistics."""
        calls = self._measured[norm]
        calls.append(self._sums.moments())
        means = [torch.stack(parts).mean(0) for parts in zip(*calls, strict=True)]
        return [(1 - self._share) * new + self._share * old for new, old in zip(means, self._old[norm], strict=True)]


class _Sums:
    """Mean and variance of rows (m, n), added up in float64 around the first mean."""

    def __init__(self) -> None:
        self.count, self.first, self.sums = 0, torch.zeros(1), torch.zeros(1)

    def add(self, x: Tensor) -> None:
        """Count some rows."""
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        if self.count == 0:
            self.first, self.sums = x.mean(0), x.new_zeros(2, x.shape[1], dtype=torch.float64)
        moved = x - self.first
        self.sums += torch.stack([moved.sum(0), moved.square().sum(0)])
        self.count += len(x)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance, (n,)."""
        mean, square = self.sums / self.count
        var = (square - mean.square()).clamp_min(0) * (self.count / max(1, self.count - 1))
        return self.first.double() + mean, var


def _statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
