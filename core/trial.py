"""One trial: the pure function that a worker runs, and what a worker keeps between trials."""

from __future__ import annotations

import math
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from core.calibration import CALIBRATIONS
from core.compress import Prepared, Result, compress, prepare
from core.config import TrialConfig, TrialRecord
from core.errors import NeuronMergingError, TrialError
from core.measure import Evaluation, evaluate, latency_ms, sizes
from core.race import Race


@dataclass
class Workbench:
    """What a worker keeps between trials, so that a trial costs little more than its evaluation.

    Args:
        model: the original network, in eval mode; never changed.
        images: evaluation inputs (N, C, H, W), normalised. May be read-only memory: never written to.
        labels: (N,) class indices.
        train_images: normalised training images (M, C, H, W), the pool that calibration draws from.
        baseline_key: identity of the original network, kept in every record.
        device: where trials compute.
        batch_size: images per forward, and between two looks at a race.
        probe: so many of the first images are a random draw from all (see `core.race.hardest_first`); 0: none are.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    train_images: Tensor
    baseline_key: str = ""
    device: str = "cpu"
    batch_size: int = 250
    probe: int = 0
    _calibrations: dict[tuple[str, int, int], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def prepared(self) -> Prepared:
        """The original's channel sets and statistics, found once."""
        return prepare(self.model, self.images[:1].to(self.device))

    @cached_property
    def original(self) -> dict[str, float]:
        """Metrics of the original network."""
        return self.measure(self.model)

    def calibration(self, config: TrialConfig) -> Tensor | None:
        """The configuration's calibration images (n, C, H, W), or None where it needs none; cached."""
        if config.calibration is None:
            return None
        key = (config.calibration, config.calibration_images, config.seed)
        if key not in self._calibrations:
            generator = torch.Generator().manual_seed(config.seed)
            drawn = CALIBRATIONS.get(config.calibration)(self.train_images, config.calibration_images, generator)
            self._calibrations[key] = drawn.to(self.device)
        return self._calibrations[key]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and sizes of ``model`` on this bench (see `TrialRecord` for names and units)."""
        return self.complete(model, self.evaluate(model), self.sizes(model))

    def sizes(self, model: nn.Module) -> dict[str, float]:
        """``params``, ``macs`` and ``bytes`` of ``model``, which are known without an evaluation."""
        return sizes(model, self.images[:1].to(self.device))

    def evaluate(self, model: nn.Module, enough: Callable[[int, int], bool] | None = None) -> Evaluation:
        """Evaluate ``model``, until ``enough`` says so (see `core.measure.evaluate`)."""
        return evaluate(model, self.images, self.labels, self.batch_size, self.device, enough)

    def complete(self, model: nn.Module, evaluation: Evaluation, size: dict[str, float]) -> dict[str, float]:
        """The metrics of a network that was evaluated on all images."""
        latency = latency_ms(model, self.images[:1].to(self.device))
        return {"accuracy": evaluation.accuracy, "loss": evaluation.mean_loss, **size, "latency_ms": latency}


def compress_trial(config: TrialConfig, bench: Workbench) -> Result:
    """Compress the bench's network as ``config`` says."""
    return compress(
        bench.prepared,
        bench.images[:1].to(bench.device),
        ratio=config.ratio,
        criterion=config.criterion,
        decomposition=config.decomposition,
        options=config.options,
        allocation=config.allocation,
        ratios=config.ratios,
        calibration=bench.calibration(config),
        sites=config.sites,
    )


def run_trial(config: TrialConfig, bench: Workbench, race: Race | None = None) -> TrialRecord:
    """Compress, evaluate, and report; a trial that fails is a record with its reason, never an exception.

    Args:
        config: what to do.
        bench: what to do it on; for a race its images should be in the order of `core.race.hardest_first`.
        race: what the trial must not be beaten by to be evaluated to the end; None: it is, whatever the others did.
    """
    started, clock = time.time(), time.perf_counter()
    common = {"key": config.key, "config": config, "started_at": started, "provenance": provenance(bench)}
    try:
        result = compress_trial(config, bench)
        evaluating = time.perf_counter()
        outcome = measure_trial(result.model, bench, race or Race())
        evaluate_seconds = time.perf_counter() - evaluating
    except Exception as error:
        expected = isinstance(error, NeuronMergingError)
        reason, log = (str(error), "") if expected else (f"{type(error).__name__}: {error}", traceback.format_exc())
        return TrialRecord(**common, status="failed", reason=reason, log=log, seconds=time.perf_counter() - clock)
    return TrialRecord(
        **common,
        **outcome,
        sites=[site.as_dict() for site in result.sites],
        skipped=result.skipped,
        seconds=time.perf_counter() - clock,
        evaluate_seconds=evaluate_seconds,
    )


def measure_trial(model: nn.Module, bench: Workbench, race: Race) -> dict[str, Any]:
    """Measure ``model`` as far as ``race`` lets it come; return its record's status, reason, metrics and images."""
    size = bench.sizes(model)
    fractions = relative(size, bench.original)
    lane = race.lane(fractions, len(bench.images), bench.probe)
    evaluation = bench.evaluate(model, lane.beaten)
    seen, right = evaluation.images, evaluation.right
    if seen == len(bench.images):
        metrics = relative(bench.complete(model, evaluation, size), bench.original)
        require_finite(metrics)
        return {"status": "finished", "metrics": metrics, "images": seen}
    require_finite({"loss": evaluation.mean_loss})
    metrics = {**lane.bounds(right), **fractions}
    return {"status": "stopped", "reason": lane.reason(right), "metrics": metrics, "images": seen}


def relative(metrics: dict[str, float], original: dict[str, float]) -> dict[str, float]:
    """Add the fractions of the original's sizes and the accuracy drop to ``metrics``, of those that are there."""
    names = [name for name in ("params", "macs", "bytes", "latency_ms") if name in metrics]
    fractions = {f"{name.removesuffix('_ms')}_fraction": metrics[name] / original[name] for name in names}
    drop = {"accuracy_drop": original["accuracy"] - metrics["accuracy"]} if "accuracy" in metrics else {}
    return {**metrics, **fractions, **drop}


def require_finite(metrics: dict[str, float]) -> None:
    """Raise a `TrialError` that names the first metric that is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrialError(f"metric {name!r} is {value}: the compressed network's outputs are not finite")


def provenance(bench: Workbench) -> dict[str, str]:
    """Where and with what a record was made."""
    return {"baseline": bench.baseline_key, "torch": torch.__version__, "host": platform.node()}
