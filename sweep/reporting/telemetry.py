"""How a sweep goes, as metrics of its Ray cluster: Prometheus reads them there, Grafana draws them.

Ray's agents export them with the prefix ``ray_`` on every node's metrics port (``ray start --metrics-export-port``),
about ten seconds behind. `GAUGES` says what each means; each has the tag ``sweep``, the sweep's name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from sweep.reporting.meter import Progress

GAUGES = {
    "sweep_trials": "trials by status: finished, failed, stopped, waiting",
    "sweep_trials_per_second": "trials per second of late",
    "sweep_eta_seconds": "seconds until the last trial ends, at this rate",
    "sweep_hypervolume": "hypervolume of the front so far",
    "sweep_best_accuracy": "best score so far: top-1 accuracy in percent, or what the evaluator gives",
    "sweep_workers": "workers that the sweep uses",
}
PERIOD = 5.0


class Telemetry:
    """Sets the metrics from the driver; does nothing at all on a private Ray, whose metrics nobody reads.

    Args:
        name: of the sweep.
        workers: how many it uses.
        enabled: False: a private Ray.
    """

    def __init__(self, name: str, workers: int, enabled: bool = True) -> None:
        self._due = 0.0 if enabled else math.inf
        self._tags = {"sweep": name}
        self._gauges = _gauges() if enabled else {}
        if enabled:
            self._set("sweep_workers", workers)

    def update(self, progress: Progress, hypervolume: Callable[[], float], last: bool = False) -> None:
        """Set all metrics, at most every `PERIOD` seconds.

        Args:
            progress: how far the sweep is.
            hypervolume: of the front so far; called only when the metrics are set.
            last: set them although it is too early.
        """
        now = time.monotonic()
        if now < self._due and not (last and self._gauges):
            return
        self._due = now + PERIOD
        for status in ("finished", "failed", "stopped"):
            self._set("sweep_trials", getattr(progress, status), status=status)
        self._set("sweep_trials", progress.total - progress.done, status="waiting")
        self._set("sweep_trials_per_second", progress.rate)
        self._set("sweep_eta_seconds", progress.eta_seconds)
        self._set("sweep_hypervolume", hypervolume())
        if progress.best is not None:
            self._set("sweep_best_accuracy", progress.best.metrics[progress.scored.score.name])

    def _set(self, name: str, value: float, **tags: str) -> None:
        if math.isfinite(value):
            self._gauges[name].set(value, tags=self._tags | tags)


def _gauges() -> dict[str, Any]:
    from ray.util.metrics import Gauge

    keys = {"sweep_trials": ("sweep", "status")}
    return {name: Gauge(name, text, tag_keys=keys.get(name, ("sweep",))) for name, text in GAUGES.items()}
