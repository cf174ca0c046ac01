"""Every metric of a trial: what it is called, which way is better, and whether it is known before an evaluation.

A new metric is one line here, and in `core.trial` where it is measured; what an evaluator measures of its own it
declares (`declare`). Sizes also come as the fraction left of the original network's, under ``<name>_fraction``; a
metric with ``test_`` before its name was measured on the test split of a trial that was searched on another one; one
with ``_drop`` behind it is how much worse than the original's it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import UnknownNameError, UsageError

Direction = Literal["max", "min"]
TEST = "test_"


@dataclass(frozen=True)
class Metric:
    """One number that is known of a trial.

    Attributes:
        name: in records, MLflow and search spaces.
        label: in words, as on an axis.
        unit: of what is shown; empty where it is a count.
        better: which way is better.
        known: without an evaluation, from the network alone.
        relative: also given as the fraction left of the original's.
        worst: no value is worse, as one corner of a hypervolume; None: there is no such value.
        form: how a value is written.
        scale: what is shown is the value times this.
    """

    name: str
    label: str
    unit: str = ""
    better: Direction = "min"
    known: bool = False
    relative: bool = False
    worst: float | None = None
    form: str = "{:.4g}"
    scale: float = 1.0

    @property
    def title(self) -> str:
        """The label with the unit, for an axis or a column."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def loss(self, value: float) -> float:
        """``value`` as something to be minimised."""
        return value if self.better == "min" else -value

    def corner(self, original: float | None) -> float:
        """No better than any value that counts, as one corner of a hypervolume: the worst, or twice as bad as before.

        Args:
            original: the original network's value; None: it is not known.
        """
        if self.worst is not None:
            return self.worst
        known = 0.0 if original is None else original
        return known + (abs(known) or 1.0) * (1 if self.better == "min" else -1)

    def show(self, value: float) -> str:
        """``value`` as it is written, without the unit."""
        return self.form.format(self.scale * value)


def _with_fractions(*metrics: Metric) -> Iterator[tuple[str, Metric]]:
    for metric in metrics:
        yield metric.name, metric
    for metric in metrics:
        if metric.relative:
            name, label = fraction_of(metric.name), f"{metric.label} left"
            left = replace(metric, name=name, label=label, unit="% of the original", worst=1.0, relative=False)
            yield name, replace(left, scale=100.0, form="{:.1f}")


def fraction_of(size: str) -> str:
    """The name of the fraction left of a size."""
    return f"{size.removesuffix('_ms')}_fraction"


def drop_of(score: str) -> str:
    """The name of how much worse than the original's a score is."""
    return f"{score}_drop"


def in_full(score: str) -> str:
    """The name of what the original network scores without autocast, where trials are evaluated with it."""
    return f"full_precision_{score}"


METRICS: dict[str, Metric] = dict(
    _with_fractions(
        Metric("accuracy", "top-1 accuracy", "%", better="max", worst=0.0, form="{:.2f}"),
        Metric("loss", "cross-entropy", "nats", form="{:.4f}"),
        Metric(drop_of("accuracy"), "accuracy lost", "points", form="{:.2f}"),
        Metric("params", "parameters", known=True, relative=True, form="{:,.0f}"),
        Metric("macs", "multiply-accumulates (MACs)", known=True, relative=True, form="{:,.0f}"),
        Metric("bytes", "bytes of weights", known=True, relative=True, form="{:,.0f}"),
        Metric("latency_ms", "latency of one image", "ms", relative=True, form="{:.3f}"),
        Metric("idle_latency_ms", "idle latency of one image", "ms", relative=True, form="{:.3f}"),
        Metric("idle_latency_spread", "spread of the idle latency", "%", form="{:.1f}", scale=100.0),
        Metric("idle_batch_ms", "idle latency of 32 images", "ms", form="{:.3f}"),
    )
)
OURS = frozenset(METRICS)
"""Those that every release has, whatever a network is scored by."""
SIZES = tuple(name for name, metric in METRICS.items() if metric.relative)
"""What a network costs: metrics that are also given as a fraction of the original's."""
SHORT: Mapping[str, str] = {
    "drop": drop_of("accuracy"),
    **{name.removesuffix("_ms"): fraction_of(name) for name in SIZES},
}
"""What may be written for a metric: ``params`` for ``params_fraction`` …"""
KNOWN_FRACTIONS = tuple(fraction_of(name) for name in SIZES if METRICS[name].known)
"""The fractions that are known before an evaluation."""


def declare(score: Metric) -> Metric:
    """Make what an evaluator measures known by its name, with how much worse than the original's it is.

    Raises:
        UsageError: another metric has this name already.
    """
    known = METRICS.setdefault(score.name, score)
    if known != score:
        ways = f"{known.better}, in {known.unit or 'no unit'}, and now {score.better}, in {score.unit or 'no unit'}"
        raise UsageError(f"metric {score.name!r} is known as {known.label!r} ({ways}): give yours another name")
    unit = "points" if score.unit == "%" else score.unit
    lost = Metric(drop_of(score.name), f"{score.label} lost", unit, form=score.form)
    METRICS.setdefault(lost.name, lost)
    return score


def metric_named(name: str) -> Metric:
    """The metric called ``name``.

    Raises:
        UnknownNameError: there is none.
    """
    if name in METRICS:
        return METRICS[name]
    if name.startswith(TEST) and name.removeprefix(TEST) in METRICS:
        metric = METRICS[name.removeprefix(TEST)]
        return replace(metric, name=name, label=f"{metric.label} on the test split")
    raise UnknownNameError("metric", name, METRICS)


def any_metric(name: str) -> Metric:
    """The metric called ``name``, or for what an evaluator gives beside its score, one of which only that is known."""
    bare = name.removeprefix(TEST)
    return metric_named(name) if bare in METRICS else Metric(name, name.replace("_", " "))


def axis_named(name: str, axis: str) -> Metric:
    """The metric that ``name`` means on an axis: a size such as ``params`` means what is left of the original's.

    Raises:
        UnknownNameError: there is none; ``axis`` says in the message what it was wanted for.
    """
    if f"{name}_fraction" in METRICS:
        return METRICS[f"{name}_fraction"]
    try:
        return metric_named(name)
    except UnknownNameError:
        short = {size.removesuffix("_ms") for size in SIZES}
        raise UnknownNameError(axis, name, short | (METRICS.keys() - {f"{s}_fraction" for s in short})) from None
