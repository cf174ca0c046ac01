"""The original network of a sweep: loaded from a checkpoint, taken from the cache, or trained once and cached.

The cache is one safetensors file per configuration, named by its key; its metadata hold the configuration, the
accuracy and the fingerprint of the data. Weights made from other data, or that no longer fit, are made again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.checkpoint import load_checkpoint
from core.config import BaselineConfig
from core.datasets import ImageDataset, load_dataset
from core.errors import CheckpointError, ModelError
from core.files import writing
from core.measure import accuracy_and_loss
from core.models import is_pretrained, load_model
from core.training import StepProgress, train

EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Baseline:
    """An original network, ready to be compressed.

    Attributes:
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
    *,
    may_train: bool = True,
) -> Baseline:
    """Return the original network: from the cache, else from its checkpoint, else trained.

    Args:
        config: what is wanted.
        cache_dir: folder of the cached networks; made if it is missing.
        progress: called with (steps done, steps in total, text) while it takes long.
        dataset: the configuration's dataset, if it is loaded already.
        device: where to train and evaluate; the network is returned there.
        may_train: False refuses to train what has been trained before.

    Raises:
        CheckpointError: it would have to be trained, and that was refused; or see `load_model`.
        DataError, ModelError, UsageError: see `load_dataset`, `train`.
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
    elif not may_train:
        raise CheckpointError(
            f"{path} is gone, damaged or of other data, and another training gives other weights; bring it back"
        )
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
