"""What one trial is (`TrialConfig`, goes down to the worker) and what came of it (`TrialRecord`, comes up).

Both are validated once, frozen, and plain JSON inside, so they travel through Ray, a file and MLflow unchanged.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.allocation import ALLOCATIONS
from core.calibration import CALIBRATIONS
from core.criteria import CRITERIA
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError, nearest, shortened

Option = bool | int | float | str


class TrialConfig(BaseModel):
    """One configuration: how much is removed, which channels, and how the rest makes up for them.

    Two configurations that do the same thing are equal and share a key: options carry their defaults, and a
    calibration source is only kept where the decomposition uses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, ge=0.0, lt=1.0, description="share of channels removed per set")
    criterion: str = "l1"
    decomposition: str = "most-similar"
    options: dict[str, Option] = Field(default_factory=dict, description="the decomposition's own options")
    allocation: str = "uniform"
    ratios: dict[str, float] = Field(
        default_factory=dict, description="for allocation 'per-site': glob pattern of producers -> ratio"
    )
    calibration: str | None = Field(None, description="source of the unlabelled images, if the method needs some")
    calibration_images: int = Field(256, ge=1, le=1_000_000)
    sites: tuple[str, ...] | None = Field(None, description="glob patterns of producers; None: every set")
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = dict(given)
        decomposition, options = values.get("decomposition", "most-similar"), values.get("options", {})
        names = [values.get(name) for name in ("criterion", "allocation", "calibration")]
        if not all(name is None or isinstance(name, str) for name in (*names, decomposition)) or not isinstance(
            options, dict
        ):
            return values  # of the wrong types, which the fields will say
        CRITERIA.get(values.get("criterion", "l1"))
        ALLOCATIONS.get(values.get("allocation", "uniform"))
        method = make_options(decomposition, options)
        values["options"] = method.model_dump()
        source = values.get("calibration")
        if source is not None:
            CALIBRATIONS.get(source)
        needed = method.needs_calibration or method.bn_recalibrate
        values["calibration"] = (source or "train-subset") if needed else None
        if not needed:
            values.pop("calibration_images", None)
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> TrialConfig:
        """Validate ``values``; every problem becomes a `UsageError` of one sentence, prefixed by ``where``."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(where + explain(error, cls)) from None
        except UsageError as error:
            if not where:
                raise
            raise UsageError(where + str(error)) from None

    @property
    def key(self) -> str:
        """Identity of the configuration: 16 hex digits of the SHA-256 of its canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrialRecord(BaseModel):
    """The outcome of one trial.

    ``metrics`` of a finished trial: ``accuracy`` (top-1, percent), ``loss`` (mean cross-entropy, nats),
    ``params``, ``macs`` (per image), ``bytes`` (weights as stored), ``latency_ms`` (one image, one thread of the
    worker), each of the sizes also as ``<name>_fraction`` of the original network, and ``accuracy_drop``
    (points below the original). A trial that a race stopped (see `core.race`) has the three sizes that are known
    without an evaluation and their fractions, and instead of an ``accuracy`` an ``accuracy_upper``, the bound that was
    too low, and an ``accuracy_estimate``, both in percent. A failed one has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    config: TrialConfig
    status: Literal["finished", "failed", "stopped"]
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    sites: list[dict[str, Any]] = Field(default_factory=list, description="what happened to each channel set")
    skipped: dict[str, str] = Field(default_factory=dict, description="layer left alone -> reason in words")
    started_at: float = Field(0.0, description="seconds since the epoch")
    seconds: float = Field(0.0, description="wall-clock duration of the trial on its worker")
    evaluate_seconds: float = Field(0.0, description="the part of it spent evaluating")
    log: str = Field("", description="what it printed and warned, and the traceback of an unexpected failure")
    images: int = Field(0, description="it was evaluated on; 0: none, or an old record that does not say")
    provenance: dict[str, str] = Field(default_factory=dict, description="baseline key, package versions, host")


def make_options(decomposition: str, options: dict[str, Any]) -> Any:
    """Build the decomposition called ``decomposition`` with its ``options``, validated.

    Raises:
        UnknownNameError: no such decomposition, or it has no option of that name (the nearest are named).
        UsageError: an option's value is out of bounds or of the wrong type.
    """
    part = DECOMPOSITIONS.get(decomposition)
    for name in options:
        if name not in part.model_fields:
            raise UnknownNameError(f"option of {decomposition!r}", name, part.model_fields)
    try:
        return part.model_validate(options)
    except ValidationError as error:
        raise UsageError(f"decomposition {decomposition!r}: {explain(error, part)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's first complaint into one sentence that names the field, the value and the bound."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "configuration"
    if first["type"] == "extra_forbidden":
        return f"unknown key {shortened(repr(field))}; {nearest(field, model.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    why = shortened(f"{message[0].lower()}{message[1:]}", 300)
    return f"{shortened(field)} = {shortened(repr(first.get('input')))}: {why}"
