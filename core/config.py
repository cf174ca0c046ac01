"""What is run: one trial (`TrialConfig`), and the original network that it compresses (`BaselineConfig`).

Both are validated once, frozen, and plain JSON inside, so they travel through Ray, a file and MLflow unchanged. Their
``key`` identifies them on disk (see `core.identity`). Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from core import identity
from core.allocation import ALLOCATIONS
from core.calibration import find_source
from core.complaints import explain
from core.criteria import CRITERIA
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError
from core.parts import DATASETS, MODELS, is_pretrained
from core.preprocessing import Preprocessing
from core.recipes import Recipe, recipe_for
from core.recovery.base import RECOVERIES
from core.snapshots import content_of
from core.target import Target

Option = bool | int | float | str
TRAINING_VERSION = 1
"""Part of every key of a trained network: raised when a change to training makes other weights."""


READ_BY: Mapping[str, tuple[str, Callable[[], Collection[Any]]]] = {
    "of": ("allocation", lambda: ("budget",)),
    "sharpness": ("allocation", lambda: ("budget",)),
    "recovery_steps": ("recovery", lambda: trainings()),
    "ratio": ("target", lambda: (None,)),
}
"""Field -> the field that decides whether it counts, and the values of that one under which it does."""


def require_sharpness(value: Any) -> Any:
    """Look whether ``value`` is a sharpness of a budget.

    Raises:
        ValueError: it is something else.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value == "auto" or (number and 0 <= value <= 1):
        return value
    raise ValueError("must be 'auto' or from 0 (all sets alike) to 1 (as their errors say)")


def require_target(value: Any) -> Any:
    """Write a target in its one form, ``accuracy_drop<=1``.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        return str(Target.parse(value)) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error).removeprefix(f"target = {value!r}: ")) from None


class TrialConfig(BaseModel):
    """One configuration: how much is removed, which channels, and how the rest makes up for them.

    Two configurations that do the same thing are equal and share a key: options carry their defaults, and a
    calibration source, or a field that a part reads (`READ_BY`), is only kept where the configuration uses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(
        0.5, ge=0.0, lt=1.0, description="share of channels removed per set; for allocation 'budget' of the whole size"
    )
    criterion: str = Field("l1", description="which channels stay")
    decomposition: str = Field("most-similar", description="what makes up for the others")
    options: dict[str, Option] = Field(default_factory=dict, description="the decomposition's own options")
    allocation: str = Field("uniform", description="what ratio each channel set gets")
    ratios: dict[str, float] = Field(
        default_factory=dict, description="for allocation 'per-site': glob pattern of producers -> ratio"
    )
    calibration: str | None = Field(None, description="source of the unlabelled images, if the method needs some")
    calibration_images: int = Field(256, ge=1, le=1_000_000, description="how many of them")
    calibration_copies: int = Field(
        1,
        ge=1,
        le=64,
        description="how often each is seen: as it is, mirrored where that is allowed, mixed with others",
    )
    sites: tuple[str, ...] | None = Field(None, description="glob patterns of producers; None: every set")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw")
    of: Literal["params", "macs", "bytes"] = Field("params", description="for allocation 'budget': what ratio is of")
    sharpness: Annotated[float | Literal["auto"], BeforeValidator(require_sharpness)] = Field(
        "auto", description="for allocation 'budget': 0, all sets alike, to 1, as their errors say; auto: tried out"
    )
    min_channels: int = Field(1, ge=1, description="so many stay in every set, if it has them")
    multiple: int = Field(1, ge=1, description="widths are multiples of it")
    recovery: str = Field("none", description="training after compression")
    recovery_steps: int = Field(400, ge=1, le=1_000_000, description="steps of it")
    target: Annotated[str | None, BeforeValidator(require_target)] = Field(
        None, description="instead of a ratio: 'drop <= 1' (points of accuracy) or 'params <= 0.3' (macs, bytes)"
    )

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = dict(given)
        decomposition, options = values.get("decomposition", "most-similar"), values.get("options", {})
        names = [values.get(name) for name in ("criterion", "allocation", "calibration", "recovery")]
        if not all(name is None or isinstance(name, str) for name in (*names, decomposition)) or not isinstance(
            options, dict
        ):
            return values  # of the wrong types, which the fields will say
        CRITERIA.require(values.get("criterion", "l1"))
        ALLOCATIONS.require(values.get("allocation", "uniform"))
        values["options"] = make_options(decomposition, options).model_dump()
        source = values.get("calibration")
        if source is not None:
            find_source(source)
        needed = reads_images({**values, **values["options"]})
        values["calibration"] = (source or "train-subset") if needed else None
        if not needed:
            values.pop("calibration_images", None)
        if not needed or learns(values) or values["options"].get("bn_recalibrate"):
            values.pop("calibration_copies", None)
        RECOVERIES.require(values.get("recovery", "none"))
        for name, (owner, read_by) in READ_BY.items():
            if values.get(owner, cls.model_fields[owner].default) not in read_by():
                values.pop(name, None)
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> TrialConfig:
        """Validate ``values``.

        Raises:
            UsageError: the first thing that is wrong, in one sentence that begins with ``where``.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(where + explain(error, cls)) from None
        except UsageError as error:
            if not where:
                raise
            raise UsageError(where + str(error)) from None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, defaults included."""
        return self.model_dump(mode="json")

    @property
    def key(self) -> str:
        """Identity of the configuration: 16 hex digits."""
        values = self.as_json()
        options = values.pop("options")
        own = identity.canonical(options, _defaults(self.decomposition), identity.OPTIONS.get(self.decomposition, {}))
        fields = identity.canonical(values, _field_defaults(), identity.TRIAL)
        return identity.digest({**fields, "options": own})


@cache
def _defaults(decomposition: str) -> Mapping[str, Any]:
    return make_options(decomposition, {}).model_dump(mode="json")  # type: ignore[no-any-return]


@cache
def _field_defaults() -> Mapping[str, Any]:
    return TrialConfig().as_json()


class BaselineConfig(Preprocessing):
    """Which network on which data, and where its weights come from; the training fields default to its recipe."""

    model: str = Field(
        description="a registered network, `torchvision:NAME`, `timm:NAME`, `huggingface:PATH`, or `module:factory` of"
        " your own"
    )
    dataset: str = Field(description="a registered dataset, `image-folder:PATH`, or `module:function` of your own")
    checkpoint: Path | None = Field(None, description="file with the weights; left out: they are trained here")
    expected_accuracy: float | None = Field(
        None, gt=1, le=100, description="top-1 on the test split in percent: a network a point below it is refused"
    )
    epochs: int = Field(Recipe.epochs, ge=1, description="training: passes over the training split")
    batch_size: int = Field(Recipe.batch_size, ge=2, description="training: images per step")
    lr: float = Field(Recipe.lr, gt=0, allow_inf_nan=False, description="training: peak learning rate")
    weight_decay: float = Field(Recipe.weight_decay, ge=0, allow_inf_nan=False, description="training: L2 penalty")
    momentum: float = Field(Recipe.momentum, ge=0, lt=1, description="training: of SGD")
    augment: bool = Field(
        Recipe.augment, description="training: shifted (and, where the dataset allows it, mirrored) images"
    )
    seed: int = Field(0, ge=0, description="training: of weights, order and augmentation")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in ("model", "dataset")):
            return given
        for registry, name in ((MODELS, given["model"]), (DATASETS, given["dataset"])):
            if ":" not in name:
                registry.require(name)
        return {**dataclasses.asdict(recipe_for(given["model"], given["dataset"])), **given}

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> BaselineConfig:
        """Validate ``values``.

        Raises:
            UsageError: the first thing that is wrong, in one sentence that begins with ``where``.
            UnknownNameError: nobody registered the model or the dataset; the message begins with ``where``.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(where + explain(error, cls)) from None
        except UnknownNameError as error:
            raise UnknownNameError(error.kind, error.name, error.known, where) from None

    @property
    def recipe(self) -> Recipe:
        """The training fields."""
        return Recipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)})

    @property
    def key(self) -> str:
        """Identity: 16 hex digits; of a checkpoint its content counts, and no training field does.

        Raises:
            CheckpointError: the checkpoint cannot be read.
        """
        values = self.model_dump(mode="json", exclude=set(identity.UNCOUNTED))
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        used = identity.canonical(values, defaults, identity.BASELINE)
        if self.checkpoint is None and not is_pretrained(self.model):
            return identity.digest({"training": TRAINING_VERSION, **used})
        content = content_of(self.model, self.checkpoint)
        untrained = {n: v for n, v in used.items() if n not in identity.BASELINE or n == "size"}
        return identity.digest({**untrained, "checkpoint": content})


def counting(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that something reads, of a record that may be an old one or a newer one's."""
    found = dict(fields)
    for name, (owner, readers) in READ_BY.items():
        if fields.get(owner) not in readers():
            found.pop(name, None)
    return found


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


def trainings() -> tuple[str, ...]:
    """The recoveries that train."""
    return tuple(name for name in RECOVERIES.names() if name != "none")


def learns(values: Mapping[str, Any]) -> bool:
    """Whether the criterion learns from the labels of calibration images, which their mixtures have not."""
    return CRITERIA.get(values.get("criterion", "l1")).needs_labels


@cache
def image_readers() -> Mapping[str, tuple[Option, ...]]:
    """Which values of which fields and options make a configuration look at calibration images; one is enough."""
    methods = tuple(name for name, part in DECOMPOSITIONS.items() if part.needs_calibration)
    criteria = tuple(name for name, part in CRITERIA.items() if part.needs_calibration)
    allocations = tuple(name for name, part in ALLOCATIONS.items() if part.needs_calibration)
    return {
        "decomposition": methods,
        "criterion": criteria,
        "allocation": allocations,
        "recovery": trainings(),
        "bn_recalibrate": (True,),
    }


def reads_images(values: Mapping[str, Any]) -> bool:
    """Whether a configuration looks at calibration images.

    Args:
        values: its fields and options by name, or some of them; what is missing has its default.
    """
    chosen = {
        name: TrialConfig.model_fields[name].default for name in image_readers() if name in TrialConfig.model_fields
    }
    chosen.update(values)
    return any(chosen.get(name) in found for name, found in image_readers().items())
