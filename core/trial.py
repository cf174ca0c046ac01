"""One trial: the pure function that a worker runs, and what a worker keeps between trials."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from core.calibration import CALIBRATIONS
from core.compress import Prepared, Result, compress, prepare
from core.config import TrialConfig, TrialRecord
from core.errors import NeuronMergingError, TrialError
from core.measure import accuracy_and_loss, latency_ms, sizes


@dataclass
class Workbench:
    """What a worker keeps between trials, so that a trial costs little more than its evaluation.

    Args:
        model: the original network, in eval mode; never changed.
        images: evaluation inputs (N, C, H, W), normalised. May be read-only memory: never written to.
        labels: (N,) class indices.
        train_images: normalised training images (M, C, H, W), the pool that calibration draws from.
        baseline_key: identity of the original network, kept in every record.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    train_images: Tensor
    baseline_key: str = ""
    device: str = "cpu"
    batch_size: int = 250
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
        example = self.images[:1].to(self.device)
        accuracy, loss = accuracy_and_loss(model, self.images, self.labels, self.batch_size, self.device)
        return {"accuracy": accuracy, "loss": loss, **sizes(model, example), "latency_ms": latency_ms(model, example)}


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


def run_trial(config: TrialConfig, bench: Workbench) -> TrialRecord:
    """Compress, evaluate, and report; a trial that fails is a record with its reason, never an exception."""
    started, clock = time.time(), time.perf_counter()
    common = {"key": config.key, "config": config, "started_at": started, "provenance": provenance(bench)}
    try:
        result = compress_trial(config, bench)
        evaluating = time.perf_counter()
        metrics = relative(bench.measure(result.model), bench.original)
        evaluate_seconds = time.perf_counter() - evaluating
        require_finite(metrics)
    except Exception as error:
        reason = str(error) if isinstance(error, NeuronMergingError) else f"{type(error).__name__}: {error}"
        return TrialRecord(**common, status="failed", reason=reason, seconds=time.perf_counter() - clock)
    return TrialRecord(
        **common,
        status="finished",
        metrics=metrics,
        sites=[site.as_dict() for site in result.sites],
        skipped=result.skipped,
        seconds=time.perf_counter() - clock,
        evaluate_seconds=evaluate_seconds,
    )


def relative(metrics: dict[str, float], original: dict[str, float]) -> dict[str, float]:
    """Add the fractions of the original's sizes and the accuracy drop to ``metrics``."""
    names = ("params", "macs", "bytes", "latency_ms")
    fractions = {f"{name.removesuffix('_ms')}_fraction": metrics[name] / original[name] for name in names}
    return {**metrics, **fractions, "accuracy_drop": original["accuracy"] - metrics["accuracy"]}


def require_finite(metrics: dict[str, float]) -> None:
    """Raise a `TrialError` that names the first metric that is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrialError(f"metric {name!r} is {value}: the compressed network's outputs are not finite")


def provenance(bench: Workbench) -> dict[str, str]:
    """Where and with what a record was made."""
    return {"baseline": bench.baseline_key, "torch": torch.__version__, "host": platform.node()}
