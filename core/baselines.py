"""The original network of a sweep: loaded from a checkpoint, taken from the cache, or trained once and cached.

The cache is one safetensors file per configuration, named by its key; its metadata hold the configuration, the
accuracy and the fingerprint of the data. Weights made from other data, or that no longer fit, are made again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils import _pytree as pytree

from core.checkpoint import is_compressed, load_checkpoint, require_size
from core.config import BaselineConfig
from core.datasets import ImageDataset
from core.datasets.loading import load_data
from core.doubts import doubts_about, require_expected
from core.errors import CheckpointError, UsageError
from core.export import load, made_of
from core.files import read_bytes, writing
from core.fit import require_fit, require_runs
from core.measure import accuracy_and_loss
from core.models import is_pretrained, load_model, remember_origin, require_code
from core.models import origin as origin_of
from core.prepared import require_sites
from core.resumable import Continuation
from core.tasks import Inputs, Task
from core.training import StepProgress, train

EVALUATION_BATCH = 250
UNDER_WAY = ".training"
"""Suffix of a training that is under way, beside where the network will be."""


@dataclass(frozen=True)
class Baseline:
    """An original network, ready to be compressed.

    Attributes:
        model: in eval mode.
        key: the configuration's.
        accuracy: top-1 on the test split, in percent; 100 where nobody knows the labels.
        config: what it was asked for.
        dataset: what it was trained and measured on; or a task of the user's.
        origin: where the weights came from this time.
        doubts: what speaks against it that a network from elsewhere is evaluated as its author meant, in sentences.
    """

    model: nn.Module
    key: str
    accuracy: float
    config: BaselineConfig
    dataset: ImageDataset | Task
    origin: Literal["checkpoint", "cache", "training", "random"]
    doubts: tuple[str, ...] = ()

    @property
    def images(self) -> ImageDataset:
        """The dataset.

        Raises:
            UsageError: it is a task.
        """
        if isinstance(self.dataset, Task):
            raise UsageError(f"{self.dataset.name!r} is a Task, and this is for datasets of images: see docs/tasks.md")
        return self.dataset

    @property
    def trained_here(self) -> bool:
        """Whether the weights are of our own training, now or before."""
        return _trains(self.config)


def prepare_baseline(
    config: BaselineConfig,
    cache_dir: str | Path,
    progress: StepProgress | None = None,
    dataset: ImageDataset | Task | None = None,
    device: str = "cpu",
    *,
    may_train: bool = True,
    sites: Collection[tuple[str, ...]] = (),
) -> Baseline:
    """Return the original network: from the cache, else from its checkpoint, else trained.

    Args:
        config: what is wanted.
        cache_dir: folder of the cached networks; made if it is missing.
        progress: called with (steps done, steps in total, text) while it takes long.
        dataset: the configuration's dataset, if it is loaded already.
        device: where to train and evaluate; the network is returned there.
        may_train: False refuses to train what has been trained before.
        sites: patterns that will choose channel sets; each must match one, which is looked at before any training.

    Raises:
        CheckpointError: it would have to be trained, and that was refused; or see `load_model`.
        ModelError: it cannot be traced, does not fit the data, or is worse than its configuration expects.
        DataError: see `load_dataset`.
        UsageError: see `train`; or a pattern of ``sites`` matches nothing, or labels are needed and nobody knows them.
    """
    tell = progress or _silent
    own, data, model = _opened(config, tell, dataset, device)
    key = config.key
    path = cache_path(config, key, cache_dir)
    kept, example = _load_cached(model, path, data), _example(data, device)
    origin: Literal["checkpoint", "cache", "training"] = "cache"
    if isinstance(data, Task) and _trains(config):
        raise UsageError(
            f"dataset {data.name!r} is a Task, for which networks are not trained here: give {config.model!r} its"
            " weights, baseline.checkpoint = FILE"
        )
    if not data.labelled and (_trains(config) or config.expected_accuracy is not None):
        raise UsageError(
            f"dataset {data.name!r} has no labels, so {config.model!r} can neither be trained on it nor be expected to"
            " reach an accuracy: give baseline.checkpoint, or published weights, and leave out expected_accuracy"
        )
    if kept is None:
        if not may_train and _trains(config):
            raise CheckpointError(
                f"{path} is gone, damaged or of other data, and another training gives other weights; bring it back"
            )
        require_sites(model, example, sites)  # what cannot be followed says so here too
        model = _filled(config, model, data, device, tell, path)
        origin = "training" if _trains(config) else "checkpoint"
        kept = _Kept(_accuracy(model, data, device), None)
    elif sites:
        require_sites(model, example, sites)
    if origin == "training":
        _store(model, path, config, data, kept)  # it took long, whatever is expected of it
    looks = False
    if isinstance(data, ImageDataset) and isinstance(own, ImageDataset):
        require_expected(config, model, kept.accuracy, data, own, device)
        looks = kept.doubts is None and not _trains(config) and config.expected_accuracy is None and data.labelled
        if looks:
            kept = _Kept(kept.accuracy, tuple(doubts_about(model, kept.accuracy, data, own, device)))
    if looks or origin == "checkpoint":
        _store(model, path, config, data, kept)
    doubts = () if kept.doubts is None or config.expected_accuracy is not None else kept.doubts
    return Baseline(model, key, kept.accuracy, config, data, origin, doubts)


def random_baseline(config: BaselineConfig, progress: StepProgress | None = None) -> Baseline:
    """Return the network with random weights, to look at its layers and its pace before it is trained.

    Raises:
        NeuronMergingError: as `prepare_baseline`.
    """
    _, data, model = _opened(config, progress or _silent, None, "cpu")
    return Baseline(model, config.key, math.nan, config, data, "random")


def _accuracy(model: nn.Module, data: ImageDataset | Task, device: str) -> float:
    """On the test split, percent; of images without labels how often the network agrees with itself."""
    if isinstance(data, Task) or not data.labelled:
        return 100.0
    return accuracy_and_loss(model, *data.inputs("test"), EVALUATION_BATCH, device)[0]


def _example(data: ImageDataset | Task, device: str) -> Inputs:
    """One input, or one of each."""
    if isinstance(data, ImageDataset):
        return data.normalise(data.test.images[:1]).to(device)
    found: Inputs = pytree.tree_map(lambda x: x.to(device), data.example_inputs)
    return found


def _opened(
    config: BaselineConfig, tell: StepProgress, dataset: ImageDataset | Task | None, device: str
) -> tuple[ImageDataset | Task, ImageDataset | Task, nn.Module]:
    """The dataset as it is and as the network takes it, and the network before its weights, which takes its images."""
    if config.checkpoint is not None:
        read_bytes(config.checkpoint.expanduser(), 1)  # before minutes are spent on data
    require_code(config.model)
    own = dataset or load_data(
        config.dataset, **config.loading(config.model, config.dataset), progress=lambda text: tell(0, 1, text)
    )
    if isinstance(own, Task):
        config.require_no_images(own.name)
        model = _unfilled(config, own, device)
        require_runs(config.model, model, own, device)
        return own, own, model
    data = config.scaled(config.model, config.dataset, own)
    model = _unfilled(config, data, device)
    require_fit(config.model, model, data, device)
    return own, data, model


def _trains(config: BaselineConfig) -> bool:
    return config.checkpoint is None and not is_pretrained(config.model)


def _filled(
    config: BaselineConfig, model: nn.Module, data: ImageDataset | Task, device: str, tell: StepProgress, path: Path
) -> nn.Module:
    """The network with its weights: from its checkpoint, torchvision, or a training, which is kept beside ``path``."""
    if config.checkpoint is not None:
        if not is_compressed(config.checkpoint.expanduser()):
            load_checkpoint(model, config.checkpoint)
    elif is_pretrained(config.model):
        return _build(config, data, device, pretrained=True)
    else:
        assert isinstance(data, ImageDataset), "on a task nothing is trained"
        about = json.dumps([config.key, data.fingerprint, _scale(data)])
        kept = Continuation(path.with_suffix(UNDER_WAY), about)
        train(model, data, config.recipe, seed=config.seed, device=device, progress=tell, continuation=kept)
    return model


def _unfilled(config: BaselineConfig, data: ImageDataset | Task, device: str) -> nn.Module:
    """The network before its weights; one of our own compressed files has its narrower layers already, and filled.

    Raises:
        CheckpointError: the file is of another network, or far too large for one.
    """
    model = _build(config, data, device, pretrained=False)
    if config.checkpoint is None:
        return model
    path = config.checkpoint.expanduser()
    require_size(path, model)
    if not is_compressed(path):
        return model
    if (name := made_of(path)) not in ("", config.model):
        raise CheckpointError(
            f"checkpoint {path} was compressed from {name!r}, not from {config.model!r}: name that model"
        )
    arguments = origin_of(model)
    smaller = load(path, factory=lambda: model)
    if arguments is not None:
        remember_origin(smaller, arguments)
    return smaller


def _build(config: BaselineConfig, data: ImageDataset | Task, device: str, *, pretrained: bool) -> nn.Module:
    classes, channels = (None, None) if isinstance(data, Task) else (len(data.classes) or None, data.shape[0])
    model = load_model(config.model, num_classes=classes, in_channels=channels, seed=config.seed, pretrained=pretrained)
    return model.to(device)


def cache_path(config: BaselineConfig, key: str, cache_dir: str | Path) -> Path:
    """Where the network of this configuration is kept."""
    name = re.sub(r"[^\w.-]+", "_", f"{config.model}-{config.dataset}-{key}")
    return Path(cache_dir) / f"{name}.safetensors"


@dataclass(frozen=True)
class _Kept:
    """What is known of a network beside its weights.

    Attributes:
        accuracy: on the test split, percent.
        doubts: see `Baseline`; None: nobody has looked.
    """

    accuracy: float
    doubts: tuple[str, ...] | None


def _load_cached(model: nn.Module, path: Path, dataset: ImageDataset | Task) -> _Kept | None:
    """Fill ``model`` from the cache; None if it is not there or no longer fits."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        scale = _scale(dataset)
        if metadata.get("data") != dataset.fingerprint or metadata.get("scale", scale) != scale:
            return None
        kept = _Kept(float(metadata["accuracy"]), _texts(metadata.get("doubts")))
        load_checkpoint(model, path)
        return kept
    except (SafetensorError, CheckpointError, OSError, KeyError, ValueError):
        return None


def _store(model: nn.Module, path: Path, config: BaselineConfig, dataset: ImageDataset | Task, kept: _Kept) -> None:
    """Write the cache file at once or not at all."""
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {
        "config": config.model_dump_json(),
        "accuracy": repr(kept.accuracy),
        "data": dataset.fingerprint,
        "scale": _scale(dataset),
    }
    if kept.doubts is not None:
        metadata["doubts"] = json.dumps(kept.doubts)
    with writing(path) as temporary:
        save_file(weights, temporary, metadata)


def _scale(dataset: ImageDataset | Task) -> str:
    return json.dumps(None if isinstance(dataset, Task) else [dataset.mean, dataset.std])


def _texts(text: str | None) -> tuple[str, ...] | None:
    """Sentences from the JSON of a cache file; None: there are none in it.

    Raises:
        ValueError: it is something else.
    """
    if text is None:
        return None
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(text)
    return tuple(found)


def _silent(*_: object) -> None:
    return None
