"""What a sweep is (`SweepRequest`), how it goes (`SweepState`), and both together as ``sweep.json`` has them.

All are frozen and checked whenever one is made, by ``dataclasses.replace`` too: a misspelt field or a value out of
bounds never reaches the disk. The file is flat: the fields of the request and of the state beside one another.
"""

from __future__ import annotations

import json
import re
from dataclasses import field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from core.complaints import explain
from core.errors import UsageError, nearest
from core.evaluators import Evaluator
from core.evaluators.base import CLASSIFICATION
from core.files import NAME
from core.identity import KEY_VERSION, OPTIONS
from core.metrics import in_full
from core.parts import is_pretrained
from search_spaces.document import EvaluationTable

Status = Literal["running", "finished", "stopped", "interrupted", "failed"]
"""``stopped``: ended early by a limit or by ``sweep stop``; ``interrupted``: by a signal or a crash."""
TRAINING = "training its original network"
"""With this begins the message of a sweep that does so."""
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Seconds = Annotated[float, Field(ge=0, lt=1e11)]
"""A time span, or a time since the epoch."""
Count = Annotated[int, Field(ge=0, le=10**9)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Limits(BaseModel):
    """What ends a sweep, or one of its trials, early; None: nothing does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float | None = Field(None, gt=0, description="end the sweep after this long; a resumed one counts anew")
    plateau: int | None = Field(None, ge=1, description="end it after so many trials without a better front")
    trial_seconds: float | None = Field(None, gt=0, description="a trial that takes longer has failed")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ClusterRequest:
    """What a sweep asks of Ray.

    Attributes:
        workers: how many at once; None: one per CPU.
        gpus_per_trial: GPUs (or a fraction) for each worker.
        address: ``host:port`` of a cluster's head, ``auto`` for one on this machine, None: start a private one.
    """

    workers: int | None = None
    gpus_per_trial: float = 0.0
    address: str | None = None


@dataclass(frozen=True, config=STRICT)
class SweepRequest:
    """What was asked for; only ``sweep resume`` asks for something else.

    Attributes:
        name: of the sweep.
        space: name of the search space.
        resolved: the space after every default and --set.
        search: the algorithm.
        samples: configurations to try; None: as the space says.
        seed: of the search's random draws.
        race: stop trials that are beaten.
        limits: what ends the sweep or a trial early.
        cluster: workers and where they run.
        tracking_uri: of MLflow, without passwords.
        key_version: under which its trials have their keys (see `core.identity`).
        models: write the networks on the front when it ends.
    """

    name: Name
    space: Name
    resolved: dict[str, Any]
    search: str
    samples: int | None = None
    seed: int = 0
    race: bool = False
    limits: Limits = Limits()
    cluster: ClusterRequest = ClusterRequest()
    tracking_uri: str = ""
    key_version: Annotated[int, Field(ge=1)] = 1
    models: bool = True

    @property
    def _evaluation(self) -> dict[str, Any]:
        found = self.resolved.get("evaluation")
        return found if isinstance(found, dict) else {}

    @property
    def evaluator(self) -> str:
        """What its trials are scored by: a name of `core.evaluators`, or of the user's function."""
        return str(self._evaluation.get("evaluator", CLASSIFICATION))

    @property
    def autocast(self) -> str:
        """What evaluations' forward passes compute in; "": in what the networks' do."""
        return str(self._evaluation.get("autocast") or "")

    @property
    def scored(self) -> Evaluator:
        """The same as such.

        Raises:
            UsageError: this release does not know it.
        """
        own = {name: self._evaluation.get(name) for name in ("metric", "direction", "unit")}
        try:
            return EvaluationTable.model_validate({"evaluator": self.evaluator, **own}).scored()
        except ValidationError as error:
            raise UsageError(f"resolved.evaluation.{explain(error, EvaluationTable)}") from None


@dataclass(frozen=True, config=STRICT)
class SweepState:
    """How a sweep goes.

    Attributes:
        total: number of configurations to try.
        status: see `Status`.
        message: why it ended early.
        lag: how many configurations an optimiser draws ahead of the results it knows.
        hints: configurations to try first.
        pid: process that runs it, or ran it last; 0: none did yet.
        host: where that process is.
        workers: how many it uses.
        started_at: seconds since the epoch.
        resumed_at: when it was last resumed; 0: never.
        ended_at: 0: not yet.
        earlier_seconds: how long it ran before it was last resumed.
        baseline_key: identity of the original network.
        original: metrics of the original network.
        dataset: what trials are evaluated on.
        versions: of the packages that decide the results.
        run_id: the MLflow parent run.
    """

    total: Count
    status: Status = "running"
    message: str = ""
    lag: Count = 0
    hints: list[dict[str, Any]] = field(default_factory=list)
    pid: int = 0
    host: str = ""
    workers: Count = 0
    started_at: Seconds = 0.0
    resumed_at: Seconds = 0.0
    ended_at: Seconds = 0.0
    earlier_seconds: Seconds = 0.0
    baseline_key: str = ""
    original: dict[str, float] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    run_id: str = ""

    @property
    def seconds(self) -> float:
        """How long it has run, all its parts together."""
        return self.earlier_seconds + max(0.0, self.ended_at - max(self.started_at, self.resumed_at))


@dataclass(frozen=True, config=STRICT)
class SweepInfo:
    """Everything about a sweep but its records: enough to say what was done and to do it again.

    Attributes:
        request: what was asked for.
        state: how it goes.
    """

    request: SweepRequest
    state: SweepState

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.request.name

    @property
    def status(self) -> Status:
        """How it goes."""
        return self.state.status

    @property
    def precision(self) -> str:
        """Autocast, and what the original network scores without it; "": trials are evaluated without."""
        if not self.request.autocast:
            return ""
        score = self.request.scored.score
        full = self.state.original.get(in_full(score.name))
        effect = (
            "" if full is None else f" (without it the original reaches {score.show(full)} {score.unit}".rstrip() + ")"
        )
        return f"autocast {self.request.autocast}{effect}"

    def renamed(self, name: str) -> SweepInfo:
        """The same sweep under another name."""
        return replace(self, request=replace(self.request, name=name))

    def to_json(self) -> str:
        """The text of ``sweep.json``."""
        values = ADAPTER.dump_python(self, mode="json")
        return json.dumps({**values["request"], **values["state"]}, indent=1)


ADAPTER: TypeAdapter[SweepInfo] = TypeAdapter(SweepInfo)
REQUESTED, STATED = ({part.name for part in fields(kind)} for kind in (SweepRequest, SweepState))


def parse_info(text: bytes | str) -> SweepInfo:
    """Read the text of ``sweep.json``.

    Raises:
        UsageError: it is no JSON, or something in it is unknown or out of bounds; one sentence says what.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("it is no JSON") from None
    if not isinstance(values, dict):
        raise UsageError("it holds no table")
    for name in values.keys() - REQUESTED - STATED:
        raise UsageError(f"unknown key {name!r}; {nearest(name, REQUESTED | STATED)}")
    parts = {"request": {n: v for n, v in values.items() if n in REQUESTED}}
    parts["state"] = {n: v for n, v in values.items() if n in STATED}
    try:
        return ADAPTER.validate_python(parts)
    except ValidationError as error:
        raise UsageError(re.sub("^(request|state)[.]", "", explain(error, BaseModel))) from None


def require_key_version(info: SweepInfo) -> None:
    """Look whether the sweep's trials would have the same keys today, so that none of them runs twice.

    Raises:
        UsageError: its keys are of another version.
    """
    found, name = info.request.key_version, info.name
    if found > KEY_VERSION:
        raise UsageError(
            f"sweep {name!r} was written by a newer release (key version {found}, this one knows {KEY_VERSION}):"
            " upgrade, then go on with it"
        )
    if found < KEY_VERSION:
        raise UsageError(
            f"sweep {name!r} was written by an older release (key version {found}, now {KEY_VERSION}), whose defaults"
            " mean something else today, so its trials would run again; begin a new sweep"
        )


def resampled(request: SweepRequest, samples: int | None = None) -> dict[str, Any]:
    """The resolved space of a sweep, with another number of configurations.

    One that was begun before spaces could say on which split they are evaluated goes on with the test split, one from
    before they wrote down the defaults of options with those of key version 1, and one from before published weights
    brought their preprocessing with the dataset's.
    """
    document = {"evaluation": {"split": "test"}, "defaults": {name: dict(own) for name, own in OPTIONS.items()}}
    document |= request.resolved
    baseline = document.get("baseline")
    if isinstance(baseline, dict) and is_pretrained(str(baseline.get("model", ""))):
        document["baseline"] = {"preprocessing": "dataset", **baseline}
    search = document.get("search", {})
    if samples is not None and isinstance(search, dict):
        document["search"] = {**search, "samples": samples}
    return document
