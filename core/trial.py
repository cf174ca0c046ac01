"""One trial: the pure function that a worker runs."""

from __future__ import annotations

import math
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from core.compress import Result, compress
from core.config import TrialConfig
from core.errors import NeuronMergingError, TrialError
from core.measure import Measurement
from core.metrics import METRICS, SIZES, Metric, drop_of, fraction_of
from core.race import Race
from core.records import SplitRecord, TrialRecord
from core.recovery import recovered
from core.target import DROP, Target, reach
from core.workbench import Workbench


@dataclass(frozen=True)
class Made:
    """What a configuration made of the original network.

    Attributes:
        model: the network, after its recovery, if it has one.
        result: of the compression.
        recovery: how the recovery went; empty where there was none.
        aimed: which ratio meets the configuration's target, in words.
    """

    model: nn.Module
    result: Result
    recovery: dict[str, Any]
    aimed: str = ""

    @property
    def notes(self) -> list[str]:
        """What was decided on the way, in words."""
        return [*filter(None, [self.aimed]), *self.result.notes, *filter(None, [self.recovery.get("note", "")])]


def make_trial(config: TrialConfig, bench: Workbench) -> Made:
    """Compress the bench's network as ``config`` says, and let it recover if that says so.

    With a target, as often as it takes to find the ratio; what is measured then is measured on the bench's images.

    Raises:
        UsageError: the target cannot be reached.
    """
    if config.target is None:
        return _make(config, bench)
    target = Target.parse(config.target)

    def measure(made: Made) -> float:
        if target.metric == DROP:
            return bench.worse(bench.evaluate(made.model).metrics)
        return relative(bench.sizes(made.model), bench.sizes(bench.model))[target.metric]

    ratio, made = reach(target, lambda ratio: _make(config.model_copy(update={"ratio": ratio}), bench), measure)
    which = "largest" if target.smallest else "smallest"
    return replace(made, aimed=f"ratio {ratio:.4g} is the {which} that meets {target}")


def _make(config: TrialConfig, bench: Workbench) -> Made:
    """What becomes of the bench's network at the configuration's ratio."""
    result = compress_trial(config, bench)
    if config.recovery == "none":
        return Made(result.model, result, {})
    clock = time.perf_counter()
    images: Any = bench.calibration(config)  # several inputs are refused in words
    assert images is not None, "a configuration with a recovery reads calibration images"
    found = recovered(
        result.model,
        bench.model,
        images,
        config.recovery,
        config.recovery_steps,
        config.seed,
        labels=bench.calibration_labels(config),
        mirror=bench.mirror,
        logits=bench.logits,
    )
    how = {name: value for name, value in vars(found).items() if name != "model"}
    return Made(found.model, result, {"method": config.recovery, "seconds": time.perf_counter() - clock, **how})


def compress_trial(config: TrialConfig, bench: Workbench) -> Result:
    """Compress the bench's network as ``config`` says, without its recovery."""
    return compress(
        bench.prepared,
        bench.example,
        ratio=config.ratio,
        criterion=config.criterion,
        decomposition=config.decomposition,
        options=config.options,
        allocation=config.allocation,
        ratios=config.ratios,
        calibration=bench.calibration(config),
        labels=bench.calibration_labels(config),
        sites=config.sites,
        seed=config.seed,
        of=config.of,
        sharpness=config.sharpness,
        min_channels=config.min_channels,
        multiple=config.multiple,
        copies=config.calibration_copies,
        mirror=bench.mirror,
        logits=bench.logits,
    )


def run_trial(config: TrialConfig, bench: Workbench, race: Race | None = None) -> TrialRecord:
    """Compress, evaluate, and report; a trial that fails is a record with its reason, never an exception.

    Args:
        config: what to do.
        bench: what to do it on; for a race its images should be in the order of `core.race.hardest_first`.
        race: what the trial must not be beaten by to be evaluated to the end; None: it is, whatever the others did.
    """
    started, clock = time.time(), time.perf_counter()
    common: dict[str, Any] = {
        "key": config.key,
        "config": config.as_json(),
        "split": bench.split,
        "started_at": started,
        "provenance": provenance(bench),
    }
    try:
        made = make_trial(config, bench)
        evaluating = time.perf_counter()
        outcome = measure_trial(made.model, bench, race or Race())
        evaluate_seconds = time.perf_counter() - evaluating
    except Exception as error:
        seconds, log = time.perf_counter() - clock, traceback.format_exc()
        return TrialRecord(**common, status="failed", reason=reason_of(error), log=log, seconds=seconds)
    return TrialRecord(
        **common,
        **outcome,
        sites=[site.as_dict() for site in made.result.sites],
        skipped=made.result.skipped,
        notes=made.notes,
        recovery=made.recovery,
        seconds=time.perf_counter() - clock,
        evaluate_seconds=evaluate_seconds,
    )


def run_test(config: TrialConfig, bench: Workbench) -> SplitRecord:
    """Compress once more and evaluate on the test split; never raises, as `run_trial`."""
    started, clock = time.time(), time.perf_counter()
    found: dict[str, Any]
    try:
        metrics, images = bench.tested(make_trial(config, bench).model)
        require_finite(metrics)
        found = {"metrics": metrics, "images": images}
    except Exception as error:
        found = {"status": "failed", "reason": reason_of(error)}
    return SplitRecord(key=config.key, split="test", **found, started_at=started, seconds=time.perf_counter() - clock)


def reason_of(error: Exception) -> str:
    """Why a trial failed, in a sentence: what was raised on purpose says so itself."""
    return str(error) if isinstance(error, NeuronMergingError) else f"{type(error).__name__}: {error}"


def measure_trial(model: nn.Module, bench: Workbench, race: Race) -> dict[str, Any]:
    """Measure ``model`` as far as ``race`` lets it come; return its record's status, reason, metrics and images."""
    size, score = bench.sizes(model), bench.scored.score
    fractions = relative(size, bench.original)
    lane = race.lane(fractions, bench.total, bench.probe)
    evaluation = bench.evaluate(model, lane.beaten)
    if isinstance(evaluation, Measurement) or evaluation.images == bench.total:
        metrics = relative(bench.complete(model, evaluation, size), bench.original, score)
        require_finite(metrics)
        return {"status": "finished", "metrics": metrics, "images": evaluation.images}
    require_finite({"loss": evaluation.mean_loss})
    metrics = {**lane.bounds(evaluation.right), **fractions}
    return {
        "status": "stopped",
        "reason": lane.reason(evaluation.right),
        "metrics": metrics,
        "images": evaluation.images,
    }


def relative(
    metrics: Mapping[str, float], original: Mapping[str, float], score: Metric = METRICS["accuracy"]
) -> dict[str, float]:
    """Add the fractions of the original's sizes to ``metrics``, and how much worse the score is, if that is there."""
    fractions = {fraction_of(name): metrics[name] / original[name] for name in SIZES if name in metrics}
    if score.name not in metrics:
        return {**metrics, **fractions}
    worse = score.loss(metrics[score.name]) - score.loss(original[score.name])
    return {**metrics, **fractions, drop_of(score.name): worse}


def require_finite(metrics: Mapping[str, float]) -> None:
    """Look at every metric.

    Raises:
        TrialError: one is not finite; the message names it.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrialError(f"metric {name!r} is {value}: the compressed network's outputs are not finite")


def provenance(bench: Workbench) -> dict[str, str]:
    """Where and with what a record was made."""
    device = torch.cuda.get_device_name(bench.device) if torch.device(bench.device).type == "cuda" else bench.device
    return {"baseline": bench.baseline_key, "torch": torch.__version__, "host": platform.node(), "device": device}
