"""The networks that everything is measured on, trained once: their weights have a checksum, which the page names."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.proof.setting import DATASET, Setting
from core.baselines import cache_path, prepare_baseline
from core.config import BaselineConfig
from core.models import load_model

_SHORT = {"epochs": 3, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4, "augment": False}
NETS: dict[str, dict[str, object]] = {
    # name on the page -> how it is trained
    "LeNet-300-100": {"model": "lenet-300-100"},
    "VGG-like": {"model": "tests.trained:vgg", **_SHORT},
    "residual": {"model": "tests.trained:resnet", **_SHORT},
    "inverted-residual": {"model": "tests.trained:mobile", **_SHORT},
    "dense": {"model": "tests.trained:dense", **_SHORT},
    "MLP, four hidden layers": {"model": "benchmarks.proof.nets:mlp", **_SHORT},
}
COMPARED = ("LeNet-300-100", "VGG-like", "residual", "inverted-residual", "dense")
"""Those that peers are compared on."""


@dataclass(frozen=True)
class Original:
    """A trained network.

    Attributes:
        name: on the page.
        model: in eval mode.
        checksum: of its weights, 12 hex digits.
    """

    name: str
    model: nn.Module
    checksum: str

    @property
    def params(self) -> int:
        """How many parameters it has."""
        return parameters(self.model)

    @property
    def normed(self) -> bool:
        """Whether it has batch norms."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules())


def parameters(model: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(weight.numel() for weight in model.parameters())


def original(name: str, setting: Setting) -> Original:
    """The network ``name``: from the cache if its weights are those that were written, else trained."""
    config = configuration(name)
    path = cache_path(config, config.key, setting.cache)
    if path.is_file() and not sound(path):
        print(f"{path} is not what was written there: {name} is trained again", file=sys.stderr)
        path.unlink()
    print(f"{name}: taken from {setting.cache}, or trained", file=sys.stderr, flush=True)
    baseline = prepare_baseline(config, setting.cache, dataset=setting.dataset)
    found = digest(path)
    sums(path).write_text(found)
    return Original(name, baseline.model.eval(), found[:12])


def configuration(name: str) -> BaselineConfig:
    """How the network ``name`` is built and trained."""
    return BaselineConfig.parse({**NETS[name], "dataset": DATASET})


def untrained(name: str, setting: Setting) -> nn.Module:
    """The network ``name`` with the weights that its training began with."""
    config, data = configuration(name), setting.dataset
    return load_model(config.model, num_classes=len(data.classes), in_channels=data.shape[0], seed=config.seed)


def sums(path: Path) -> Path:
    """Where the checksum of a cached network is."""
    return path.with_suffix(".sha256")


def sound(path: Path) -> bool:
    """Whether the weights in a file are those whose checksum lies beside it."""
    try:
        return sums(path).read_text() == digest(path)
    except (OSError, SafetensorError):
        return False


def digest(path: Path) -> str:
    """Checksum of the weights in a file, whatever their order in it."""
    return digest_of(load_file(path))


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Checksum of weights by name, whatever their order."""
    found = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.contiguous().numpy().tobytes())
    return found.hexdigest()
