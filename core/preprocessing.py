"""How pixels become inputs: what a baseline may say of it, and what then holds for its data.

A configuration's own ``mean``, ``std``, ``size``, ``resize`` and ``interpolation`` come first. What it leaves open
comes with published weights where photographs of a folder are read, and else from the dataset. Nothing here imports
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from core.errors import UsageError
from core.parts import IMAGE_FOLDER, is_pretrained

if TYPE_CHECKING:
    from core.datasets import ImageDataset
    from core.tasks import Task

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def listed(value: Any) -> Any:
    """A single number as a list of one."""
    return (value,) if isinstance(value, int | float) else value


class Preprocessing(BaseModel):
    """What becomes of an image before the network sees it; None: as the weights or the dataset have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int | None = Field(None, ge=1, description="side of the images in pixels")
    resize: int | None = Field(
        None, ge=1, description="for photographs: their shorter side, in pixels, before the middle is cut out"
    )
    interpolation: Interpolation | None = Field(
        None, description="how images are scaled to `size`; small ones are padded with black where it is left out"
    )
    mean: Annotated[tuple[Finite, ...] | None, BeforeValidator(listed)] = Field(
        None, min_length=1, description="subtracted from pixels in [0, 1]: one number, or one per channel"
    )
    std: Annotated[tuple[Annotated[Finite, Field(gt=0)], ...] | None, BeforeValidator(listed)] = Field(
        None, min_length=1, description="what they are then divided by: one number, or one per channel"
    )
    preprocessing: Literal["weights", "dataset"] | None = Field(
        None, description="whose holds for all that is left out: of published weights, where there are some, or of"
        " the dataset"
    )  # fmt: skip

    def loading(self, model: str, dataset: str) -> dict[str, Any]:
        """The arguments of `core.datasets.load_dataset` that a model's data are loaded with."""
        own = self._published(model, dataset)
        given = {"size": self.size, "resize": self.resize, "interpolation": self.interpolation}
        found = {**own, **{name: value for name, value in given.items() if value is not None}}
        if own and self.size is not None and self.resize is None:
            found["resize"] = round(self.size * own["resize"] / own["size"])
        return {name: found.get(name) for name in given}

    def scaled(self, model: str, dataset: str, data: ImageDataset) -> ImageDataset:
        """``data`` with the mean and standard deviation that hold for a model.

        Raises:
            UsageError: there are not as many numbers as the images have channels.
        """
        own, channels = self._published(model, dataset), data.shape[0]
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) not in (1, channels):
                raise UsageError(
                    f"{name} has {len(given)} numbers, and the images of {data.name!r} have {channels} channels: give"
                    " one number, or one per channel"
                )
        mean, std = self.mean or own.get("mean") or data.mean, self.std or own.get("std") or data.std
        return replace(data, mean=_per_channel(mean, channels), std=_per_channel(std, channels))

    def require_no_images(self, name: str) -> None:
        """Look that nothing is said of images, for data that has none.

        Raises:
            UsageError: something is.
        """
        for field in Preprocessing.model_fields:
            if getattr(self, field) is not None:
                raise UsageError(f"{field} is of images, and {name!r} brings inputs of its own: leave it out")

    def _published(self, model: str, dataset: str) -> dict[str, Any]:
        """What published weights were trained with, where that is what holds."""
        if self.preprocessing == "dataset" or not is_pretrained(model) or not dataset.startswith(IMAGE_FOLDER):
            return {}
        from core.models import preprocessing_of

        return preprocessing_of(model)


def _per_channel(numbers: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(numbers) * channels if len(numbers) == 1 else tuple(numbers)


def described(data: ImageDataset | Task) -> str:
    """How the pixels of a dataset become inputs, in words; what a task takes."""
    from core.tasks import Task

    if isinstance(data, Task):
        return data.words
    side = "x".join(map(str, data.shape[1:]))
    return f"images {side}, mean {numbers(data.mean)}, std {numbers(data.std)}"


def numbers(values: Sequence[float]) -> str:
    """Numbers per channel as a person writes them: once where they are all the same."""
    shown = [f"{value:.6g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else f"[{', '.join(shown)}]"
