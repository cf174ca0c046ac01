"""Lines of a file: what came of a trial, what it reached on another split, and how fast its network is alone.

A record's configuration is plain JSON here, whatever parts it names: it is parsed into a `TrialConfig` where it is run
once more, and nowhere else. So a record outlives the criterion, the decomposition or the option that made it: it is
shown, plotted and kept. Reading records imports neither torch nor scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.metrics import TEST

EvalSplit = Literal["validation", "test"]
"""The part of a dataset that a trial is evaluated on."""
Precision = Literal["bfloat16", "float16"]
"""What forward passes may compute in where a trial is evaluated (see `core.precision`)."""


class TrialRecord(BaseModel):
    """The outcome of one trial.

    ``metrics`` of a finished trial are those of `core.metrics`. A trial that a race stopped (see `core.race`) has the
    sizes that are known without an evaluation and their fractions, and instead of an ``accuracy`` an
    ``accuracy_upper``, the bound that was too low, and an ``accuracy_estimate``, both in percent. A failed one has
    none. Accuracies and losses are those on ``split``; on the test split of a trial that was searched on another one
    they are called ``test_accuracy`` and ``test_loss``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may say more of a trial

    key: str = Field(description="of the configuration")
    config: dict[str, Any] = Field(description="the configuration as plain JSON, defaults included")
    status: Literal["finished", "failed", "stopped"] = Field(description="how it ended; stopped: by a race")
    split: EvalSplit = Field(
        "test", description="what it was evaluated on; records that do not say were on the test split"
    )
    reason: str = Field("", description="why it failed, in one sentence")
    metrics: dict[str, float] = Field(default_factory=dict, description="see above")
    sites: list[dict[str, Any]] = Field(default_factory=list, description="what happened to each channel set")
    skipped: dict[str, str] = Field(default_factory=dict, description="layer left alone -> reason in words")
    notes: list[str] = Field(default_factory=list, description="what was decided on the way, in words")
    recovery: dict[str, Any] = Field(
        default_factory=dict, description="method, seconds, held-out loss before and after, curve; empty: none"
    )
    started_at: float = Field(0.0, description="seconds since the epoch")
    seconds: float = Field(0.0, description="wall-clock duration of the trial on its worker")
    evaluate_seconds: float = Field(0.0, description="the part of it spent evaluating")
    log: str = Field("", description="what it printed and warned, and the traceback of a failure")
    images: int = Field(0, description="it was evaluated on; 0: none, or an old record that does not say")
    provenance: dict[str, str] = Field(default_factory=dict, description="baseline key, package versions, host")

    @property
    def ratio(self) -> float:
        """Share of channels removed per set; NaN where the configuration does not say, as with a target."""
        found = None if self.config.get("target") else self.config.get("ratio")
        return float(found) if isinstance(found, int | float) else math.nan

    @property
    def criterion(self) -> str:
        """Which channels stayed."""
        return str(self.config.get("criterion", "?"))

    @property
    def decomposition(self) -> str:
        """What made up for the others."""
        return str(self.config.get("decomposition", "?"))

    @property
    def options(self) -> Mapping[str, Any]:
        """The decomposition's own options."""
        found = self.config.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def title(self) -> str:
        """The trial in three words."""
        return f"{self.decomposition} {self.criterion} {self.config.get('target') or format(self.ratio, 'g')}"


class SplitRecord(BaseModel):
    """What a trial that has its record reached on another split of the data, as on the test split after a search."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["split"] = Field("split", description="tells the line from a trial's")
    key: str = Field(description="of the trial")
    split: EvalSplit = Field(description="what it was evaluated on")
    status: Literal["finished", "failed"] = Field("finished", description="how the evaluation ended")
    reason: str = Field("", description="why it failed, in one sentence")
    metrics: dict[str, float] = Field(default_factory=dict, description="accuracy (percent) and loss (nats)")
    images: int = Field(0, description="it was evaluated on")
    started_at: float = Field(0.0, description="seconds since the epoch")
    seconds: float = Field(0.0, description="wall-clock duration of the evaluation")

    def joined(self, record: TrialRecord) -> TrialRecord:
        """``record`` with what was measured here: ``test_accuracy`` beside ``accuracy``."""
        found = {f"{TEST}{name}": value for name, value in self.metrics.items()} if self.split == "test" else {}
        return record.model_copy(update={"metrics": {**record.metrics, **found}})


class TimeRecord(BaseModel):
    """How fast the network of a trial that has its record is when nothing else runs, measured when its sweep ended.

    ``metrics`` are the ``idle_`` ones of `core.metrics`; the fraction is of the original network's latency there and
    then. Networks of the same shapes share one measurement.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["time"] = Field("time", description="tells the line from a trial's")
    key: str = Field(description="of the trial")
    metrics: dict[str, float] = Field(description="see above")
    provenance: dict[str, str] = Field(default_factory=dict, description="host, device, threads, torch")
    started_at: float = Field(0.0, description="seconds since the epoch")
    seconds: float = Field(0.0, description="wall-clock duration of making the network once more and measuring it")

    def joined(self, record: TrialRecord) -> TrialRecord:
        """``record`` with what was measured here."""
        return record.model_copy(update={"metrics": {**record.metrics, **self.metrics}})


Record = TrialRecord | SplitRecord | TimeRecord


KINDS: Mapping[bytes, type[Record]] = {b'{"kind":"time"': TimeRecord, b'{"kind":': SplitRecord}
"""How a line begins -> what it is; any other is a trial's."""


def parse_record(line: bytes | str) -> Record:
    """Read one line.

    Raises:
        ValidationError: it is no record as this release knows them.
    """
    text = line if isinstance(line, bytes) else line.encode()
    kind: type[Record] = next((kind for head, kind in KINDS.items() if text.startswith(head)), TrialRecord)
    return kind.model_validate_json(line)
