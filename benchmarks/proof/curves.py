"""Accuracy over the epochs of a training, kept as soon as it is there: a run that was broken off goes on from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.proof.originals import digest_of
from benchmarks.proof.setting import Setting
from core.files import writing
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.training import train

FOLDER = "curves"


def curve_of(model: nn.Module, names: Mapping[str, Any], recipe: Recipe, seed: int, setting: Setting) -> list[float]:
    """The curve of a training; from the cache if this very training was done before, else the model is trained.

    What determines it is in its file and in the file's name: the weights it starts from, recipe, seed, images, torch.

    Args:
        model: to start from; it may be trained in place.
        names: what it is, for who reads the file.
        recipe: of the training.
        seed: of the training.
        setting: of the run.
    """
    about = {
        **names,
        "start": digest_of(model.state_dict()),
        "recipe": asdict(recipe),
        "seed": seed,
        "images": setting.images,
        "data": setting.dataset.fingerprint,
        "torch": torch.__version__,
    }
    path = path_of(about, names, setting)
    curve = read(path, about)
    if curve is None:
        curve = trained(model, setting, recipe, seed)
        with writing(path) as temporary:
            temporary.write_text(json.dumps({"about": about, "curve": curve}, indent=1))
    return curve


def path_of(about: Mapping[str, Any], names: Mapping[str, Any], setting: Setting) -> Path:
    """Where the curve of what is ``about`` it is kept."""
    words = re.sub(r"[^\w.-]+", "_", "-".join(map(str, names.values())))
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    return setting.cache / FOLDER / f"{words}-{about['seed']}-{key}.json"


def read(path: Path, about: Mapping[str, Any]) -> list[float] | None:
    """The curve in a file; None if it is not there, damaged, or of another training."""
    try:
        found = json.loads(path.read_text())
        same = found["about"] == json.loads(json.dumps(about))
        curve = [float(value) for value in found["curve"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return curve if same and len(curve) == about["recipe"]["epochs"] + 1 else None


def trained(model: nn.Module, setting: Setting, recipe: Recipe, seed: int) -> list[float]:
    """Train in place; accuracy before, and at the first report after each epoch (at most 20 steps later)."""
    images, labels = setting.dataset.inputs("test", setting.images)

    def look() -> float:
        modes = {module: module.training for module in model.modules()}
        found = accuracy_and_loss(model.eval(), images, labels)[0]
        for module, mode in modes.items():
            module.training = mode
        return found

    curve = [look()]

    def progress(step: int, steps: int, _: str) -> None:
        if step < steps and step * recipe.epochs >= len(curve) * steps:
            curve.append(look())

    train(model, setting.dataset, recipe, seed=seed, progress=progress)
    return [*curve, look()]
