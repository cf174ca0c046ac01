"""The original network of a sweep: loaded from a checkpoint, taken from the cache, or trained once and cached.

The cache is one safetensors file per configuration, named by its key; its metadata hold the configuration, the
accuracy and the fingerprint of the data. Weights made from other data, or that no longer fit, are made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.checkpoint import load_checkpoint, read_bytes
from core.config import explain
from core.datasets import DATASETS, ImageDataset, load_dataset
from core.errors import CheckpointError, ModelError, UnknownNameError, UsageError
from core.files import writing
from core.measure import accuracy_and_loss
from core.models import MODELS, Recipe, is_pretrained, load_model, recipe_for
from core.training import StepProgress, train

TRAINING_VERSION = 1
"""Part of every key of a trained baseline: raised when a change to training makes other weights."""
EVALUATION_BATCH = 250


class BaselineConfig(BaseModel):
    """Which network on which data, and where its weights come from; the training fields default to its recipe.

    Args:
        model: see `load_model`.
        dataset: see `load_dataset`.
        checkpoint: file with the weights; None trains, unless the model's name brings weights along.
        size: side of the images in pixels; None: the dataset's own.
        epochs: passes over the training split.
        batch_size: images per step.
        lr: peak learning rate.
        weight_decay: L2 penalty.
        momentum: of SGD.
        augment: train on shifted (and, where the dataset allows it, mirrored) images.
        seed: of weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    dataset: str
    checkpoint: Path | None = None
    size: int | None = Field(None, ge=1)
    epochs: int = Field(Recipe.epochs, ge=1)
    batch_size: int = Field(Recipe.batch_size, ge=2)
    lr: float = Field(Recipe.lr, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(Recipe.weight_decay, ge=0, allow_inf_nan=False)
    momentum: float = Field(Recipe.momentum, ge=0, lt=1)
    augment: bool = Recipe.augment
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in ("model", "dataset")):
            return given
        for registry, name in ((MODELS, given["model"]), (DATASETS, given["dataset"])):
            if ":" not in name:
                registry.get(name)
        return {**dataclasses.asdict(recipe_for(given["model"], given["dataset"])), **given}

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> BaselineConfig:
        """Validate ``values``; every problem becomes a `UsageError` of one sentence, prefixed by ``where``."""
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
        """Identity: 16 hex digits of a SHA-256; of a checkpoint its content counts, and no training field does.

        Raises:
            CheckpointError: the checkpoint cannot be read.
        """
        if self.checkpoint is None and not is_pretrained(self.model):
            identity = {"training": TRAINING_VERSION, **self.model_dump(mode="json")}
        else:
            content = None if self.checkpoint is None else hashlib.sha256(read_bytes(self.checkpoint)).hexdigest()
            identity = {"model": self.model, "dataset": self.dataset, "size": self.size, "checkpoint": content}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Baseline:
    """An original network, ready to be compressed.

    Args:
        model: in eval mode.
        key: the configuration's.
        accuracy: top-1 on the test split, in percent.
        config: what it was asked for.
        dataset: what it was trained and measured on.
        origin: where the weights came from this time.
    """

    model: nn.Module
    key: str
    accuracy: float
    config: BaselineConfig
    dataset: ImageDataset
    origin: Literal["checkpoint", "cache", "training"]


def prepare_baseline(
    config: BaselineConfig,
    cache_dir: str | Path,
    progress: StepProgress | None = None,
    dataset: ImageDataset | None = None,
    device: str = "cpu",
) -> Baseline:
    """Return the original network: from the cache, else from its checkpoint, else trained.

    Args:
        config: what is wanted.
        cache_dir: folder of the cached networks; made if it is missing.
        progress: called with (steps done, steps in total, text) while it takes long.
        dataset: the configuration's dataset, if it is loaded already.
        device: where to train and evaluate; the network is returned there.

    Raises:
        CheckpointError, DataError, ModelError, UsageError: see `load_model`, `load_dataset`, `train`.
    """
    tell = progress or _silent
    key = config.key
    data = dataset or load_dataset(config.dataset, size=config.size, progress=lambda text: tell(0, 1, text))
    model = _build(config, data, device, pretrained=False)
    require_fit(config.model, model, data, device)
    path = cache_path(config, key, cache_dir)
    accuracy = _load_cached(model, path, data)
    if accuracy is not None:
        return Baseline(model, key, accuracy, config, data, "cache")
    origin: Literal["checkpoint", "training"] = "checkpoint"
    if config.checkpoint is not None:
        load_checkpoint(model, config.checkpoint)
    elif is_pretrained(config.model):
        model = _build(config, data, device, pretrained=True)
    else:
        origin = "training"
        train(model, data, config.recipe, seed=config.seed, device=device, progress=tell)
    accuracy, _ = accuracy_and_loss(model, *data.inputs("test"), EVALUATION_BATCH, device)
    _store(model, path, {"config": config.model_dump_json(), "accuracy": repr(accuracy), "data": data.fingerprint})
    return Baseline(model, key, accuracy, config, data, origin)


def _build(config: BaselineConfig, data: ImageDataset, device: str, *, pretrained: bool) -> nn.Module:
    classes, channels = len(data.classes), data.shape[0]
    model = load_model(config.model, num_classes=classes, in_channels=channels, seed=config.seed, pretrained=pretrained)
    return model.to(device)


def require_fit(name: str, model: nn.Module, dataset: ImageDataset, device: str = "cpu") -> None:
    """Run one image through ``model``.

    Raises:
        ModelError: it does not take the dataset's images, gives no output for each class, or comes with weights for
            another number of classes.
    """
    shape, classes = dataset.shape, len(dataset.classes)
    try:
        with torch.no_grad():
            output = model(dataset.normalise(dataset.test.images[:1]).to(device))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"model {name!r} does not take images {shape} of {dataset.name!r} ({reason}): choose another size"
        ) from None
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < classes:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"model {name!r} gives {found} for one image; expected logits (1, {classes})")
    if is_pretrained(name) and output.shape[1] != classes:
        raise ModelError(
            f"the weights of model {name!r} tell {output.shape[1]} classes apart, and {dataset.name!r} has {classes}: "
            "use a dataset with the weights' own classes, in their order"
        )


def cache_path(config: BaselineConfig, key: str, cache_dir: str | Path) -> Path:
    """Where the network of this configuration is kept."""
    name = re.sub(r"[^\w.-]+", "_", f"{config.model}-{config.dataset}-{key}")
    return Path(cache_dir) / f"{name}.safetensors"


def _load_cached(model: nn.Module, path: Path, dataset: ImageDataset) -> float | None:
    """Fill ``model`` from the cache and return its accuracy; None if it is not there or no longer fits."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("data") != dataset.fingerprint:
            return None
        accuracy = float(metadata["accuracy"])
        load_checkpoint(model, path)
        return accuracy
    except (SafetensorError, CheckpointError, OSError, KeyError, ValueError):
        return None


def _store(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the cache file at once or not at all."""
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    with writing(path) as temporary:
        save_file(weights, temporary, metadata)


def _silent(*_: object) -> None:
    return None
