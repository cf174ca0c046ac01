"""A record as MLflow sees it: one child run's name, parameters, metrics and tags. Plain data, no MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.config import counting
from core.metrics import METRICS, OURS, TEST
from core.records import EvalSplit, Record, SplitRecord, TrialRecord
from sweep.text import abridged

TRIAL_KEY = "sweep.trial_key"
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
VALUE_LIMIT, NOTE_LIMIT, NAME_LIMIT = 500, 4_000, 120
BEST = "best_"
RECOVERY_LOSS = "recovery_loss"
USUAL = {"recovery": "none", "min_channels": 1, "multiple": 1}
"""Fields that are left out where they say what every trial did before there was a choice."""
RUN_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""Status of a trial or a sweep -> MLflow's. ``stopped`` is an end in good order, by a race or a limit."""


@dataclass(frozen=True)
class DatasetCard:
    """What trials were evaluated on.

    Attributes:
        name: of the dataset.
        digest: at most 36 characters that change with the data.
        images: how many.
        shape: (C, H, W) of one.
        split: which part of the dataset.
    """

    name: str
    digest: str
    images: int
    shape: tuple[int, ...]
    split: EvalSplit = "test"

    @property
    def source(self) -> str:
        """Where it is from, as JSON."""
        return json.dumps({"dataset": self.name, "split": self.split})

    @property
    def schema(self) -> str:
        """Shape of one image, as JSON."""
        return json.dumps({"image": list(self.shape)})

    @property
    def profile(self) -> str:
        """Number of images, as JSON."""
        return json.dumps({"images": self.images})


@dataclass(frozen=True)
class ChildRun:
    """One trial as a child run.

    Attributes:
        key: of the trial.
        name: what the run is called.
        status: in MLflow's words, such as FINISHED.
        start: milliseconds since the epoch.
        end: milliseconds since the epoch.
        params: the configuration, flat.
        metrics: those of the record, and how long it took on how many images.
        tags: the parent run, the key, and where the record comes from.
        curve: (step, loss) of a recovery; MLflow's metric `RECOVERY_LOSS`.
    """

    key: str
    name: str
    status: str
    start: int
    end: int
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    curve: tuple[tuple[int, float], ...] = ()

    def points(self) -> list[tuple[str, float, int]]:
        """Every metric as (name, value, step), the last step of the curve at its end."""
        found = [(name, value, 0) for name, value in self.metrics.items()]
        return found + [(RECOVERY_LOSS, value, step) for step, value in self.curve]

    def latest(self) -> list[tuple[str, float, int]]:
        """The last point of every metric."""
        return list({point[0]: point for point in self.points()}.values())


@dataclass(frozen=True)
class Amendment:
    """What a child run gets later, once the front is known.

    Attributes:
        key: of the trial.
        metrics: those of the test split.
        at: when they were measured, milliseconds since the epoch.
    """

    key: str
    metrics: dict[str, float]
    at: int


def amendment(record: Record) -> Amendment | None:
    """What ``record`` says of the test split of a trial that was searched on another one; None: nothing."""
    if isinstance(record, SplitRecord):
        found = {f"{TEST}{name}": value for name, value in record.metrics.items()}
    else:
        found = {name: value for name, value in record.metrics.items() if name.startswith(TEST)}
    found = all_rounded(found)
    return Amendment(record.key, found, round(record.started_at * 1e3)) if found else None


FIRST = ("decomposition", "criterion", "allocation", "ratio")
"""What a run's name begins with."""


class Names:
    """What the child runs of one sweep are called: by what varies in it, each differently.

    Args:
        varying: names of the fields and options that do.
    """

    def __init__(self, varying: Sequence[str]) -> None:
        first = [name for name in FIRST if name in varying]
        self._varying = [*first, *(name for name in varying if name not in first)]
        self._given: dict[str, str] = {}

    def of(self, record: TrialRecord) -> str:
        """The name of a trial's run, the same whenever it is asked for."""
        found = {**record.config, **record.options}
        ratios = record.config.get("ratios") or {}
        found |= {f"ratios.{pattern}": ratio for pattern, ratio in ratios.items()}
        words = [_word(name, found[name]) for name in self._varying if found.get(name) is not None]
        text = " · ".join(words) or record.title
        if len(text) > NAME_LIMIT:
            text = f"{text[:NAME_LIMIT]}… · {record.key[:8]}"
        if self._given.setdefault(text, record.key) != record.key:
            text = f"{text} · {record.key[:8]}"
        return text


def _word(name: str, value: Any) -> str:
    """A value as part of a name; words speak for themselves, numbers do not."""
    if isinstance(value, str):
        return value
    shown = f"{value:.4g}" if isinstance(value, float) else as_text(value)
    return shown if name == "ratio" else f"{name.removeprefix('ratios.')} {shown}"


def rounded(name: str, value: float) -> float:
    """A metric as people read it: percent and points to two places, others to four; a user's own to four digits."""
    metric = METRICS.get(name.removeprefix(TEST).removeprefix(BEST))
    if metric is not None and metric.unit in ("%", "points") and metric.scale == 1:
        return round(value, 2)
    return round(value, 4) if metric is None or metric.name in OURS or abs(value) >= 1 else float(f"{value:.4g}")


def all_rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Every metric as people read it; the whole digits are in the results store."""
    return {name: rounded(name, value) for name, value in metrics.items()}


def child_run(record: TrialRecord, parent: str, name: str = "") -> ChildRun:
    """The child run of ``record`` under the run ``parent``."""
    name = name or record.title
    tags = {PARENT: parent, RUN_NAME: name, TRIAL_KEY: record.key, "sweep.status": record.status}
    tags["sweep.split"] = record.split
    tags |= {f"sweep.{key}": value for key, value in record.provenance.items()}
    if record.reason:
        tags["sweep.reason"] = record.reason[:VALUE_LIMIT]
    if record.notes:
        tags["sweep.notes"] = "; ".join(record.notes)[:VALUE_LIMIT]
    if record.log:
        tags[NOTE] = f"```\n{abridged(record.log, NOTE_LIMIT)}\n```"  # the run's description in the UI
    return ChildRun(
        key=record.key,
        name=name,
        status=RUN_STATUS[record.status],
        start=round(record.started_at * 1e3),
        end=round((record.started_at + record.seconds) * 1e3),
        params=params_of(record),
        metrics=all_rounded(
            {
                **record.metrics,
                "seconds": record.seconds,
                "evaluate_seconds": record.evaluate_seconds,
                "images": float(record.images),
            }
        ),
        tags=tags,
        curve=tuple((int(step), float(loss)) for step, loss in record.recovery.get("curve", ())),
    )


def params_of(record: TrialRecord) -> dict[str, str]:
    """The configuration flattened: options stand beside the other fields; what is not set is left out."""
    flat = {**{name: value for name, value in record.config.items() if name != "options"}, **record.options}
    if flat.get("calibration") is None:
        flat.pop("calibration_images", None)
        flat.pop("calibration_copies", None)
    flat = counting(flat)
    for name, value in USUAL.items():
        if flat.get(name) == value:
            flat.pop(name)
    return {name: as_text(value)[:VALUE_LIMIT] for name, value in flat.items() if value not in (None, {}, [])}


def as_text(value: object) -> str:
    """A value as MLflow shows it."""
    return value if isinstance(value, str) else json.dumps(value)
