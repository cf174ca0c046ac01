"""Networks in the layout of Hugging Face: a folder with a config.json and its weights as safetensors. Without torch.

`huggingface:PATH` names such a folder, or a model that lies in the cache of that hub (``microsoft/resnet-18``, with
``@REVISION`` where it is not ``main``). Nothing is ever downloaded, and a pickle is never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from core.errors import CheckpointError, UsageError
from core.files import file_digest
from core.parts import HUGGINGFACE

CONFIG, WEIGHTS, INDEX, PREPROCESSING = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the ways that `core.preprocessing` knows."""
READERS = frozenset({"Beit", "Bit", "CLIP", "ConvNext", "DeiT", "MobileNetV1", "MobileNetV2", "ViT"})
"""transformers' classes that scale an image, cut the middle out, or none, and normalise it, and do nothing else."""


def folder_of(model: str) -> Path:
    """The folder that ``huggingface:PATH`` names.

    Raises:
        UsageError: there is none, neither here nor in the cache, or it holds no network.
    """
    text = model.removeprefix(HUGGINGFACE)
    folder = Path(text).expanduser()
    if not text or not folder.is_dir():
        folder = _cached(model, text)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"model {model!r}: {folder} has no {CONFIG}; give the folder that save_pretrained() wrote")
    return folder


def _cached(model: str, text: str) -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    name, _, revision = text.partition("@")
    own, found = cache / f"models--{name.replace('/', '--')}", revision or "main"
    if name and ".." not in text:
        reference = own / "refs" / found
        commit = reference.read_text().strip() if reference.is_file() else found
        if (folder := own / "snapshots" / commit).is_dir():
            return folder
    raise UsageError(
        f"model {model!r}: there is no folder {text!r}, and {cache} has no such model: give the folder that"
        f" save_pretrained() wrote, or fetch the model with `hf download {name or 'ORGANISATION/NAME'}`"
    )


def weights_of(folder: Path) -> list[Path]:
    """The files with the weights of the network in ``folder``, all of them safetensors.

    Raises:
        CheckpointError: there are none, or a part of them is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        parts = _table(folder / INDEX).get("weight_map")
        names = sorted({*map(str, parts.values())}) if isinstance(parts, dict) else []
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if not names or missing:
            raise CheckpointError(f"{folder} lacks {missing[0] if missing else 'weights'}, which its {INDEX} speaks of")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which is not opened: write them as safetensors, with"
            " save_pretrained() where you trust them"
        )
    raise CheckpointError(f"{folder} has no weights ({WEIGHTS}); give the folder that save_pretrained() wrote")


def content_of(model: str, checkpoint: Path | None) -> str | None:
    """The SHA-256 of the files that a network's weights come from; None where its name alone says which they are.

    Raises:
        UsageError, CheckpointError: one of them cannot be read, see `folder_of` and `weights_of`.
    """
    if checkpoint is not None:
        return file_digest(checkpoint.expanduser())
    if not model.startswith(HUGGINGFACE):
        return None
    folder = folder_of(model)
    files = [folder / CONFIG, *weights_of(folder), *filter(Path.is_file, [folder / PREPROCESSING])]
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()


def preprocessing_of(model: str) -> dict[str, Any]:
    """How the images are read that the network was evaluated with: size, resize, interpolation, mean, std.

    Raises:
        UsageError: its folder does not say, or in a way that is not known here.
    """
    folder = folder_of(model)
    told = _table(folder / PREPROCESSING) if (folder / PREPROCESSING).is_file() else {}
    try:
        found = _way(told)
    except (TypeError, ValueError, ArithmeticError):  # something else than the number that it should be
        found = None
    if found is None:
        raise UsageError(
            f"model {model!r}: its {PREPROCESSING} is missing or reads images in a way that is not known here: set"
            ' baseline.preprocessing = "dataset", and size, mean and std'
        )
    return found


def _way(told: dict[str, Any]) -> dict[str, Any] | None:
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    size, crop = _side(told.get("size")), _side(told.get("crop_size"))
    if kind == "ConvNext" and "crop_pct" in told and size is not None and size < 384:  # above, all of it is squeezed
        size, crop = int(size / told["crop_pct"]), size
    side = crop if told.get("do_center_crop", crop is not None) and crop else size
    way, mean, std = RESAMPLING.get(told.get("resample", -1)), told.get("image_mean"), told.get("image_std")
    if told.get("do_normalize") is False:
        mean, std = [0.0], [1.0]
    odd = (
        kind not in READERS,
        told.get("do_rescale", True) is not True,
        told.get("do_flip_channel_order", False),
        told.get("rescale_offset", False),
        abs(told.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3,
    )
    if size is None or side is None or way is None or not mean or not std or any(odd):
        return None
    means, deviations = tuple(map(float, mean)), tuple(map(float, std))
    return {"size": side, "resize": max(size, side), "interpolation": way, "mean": means, "std": deviations}


def _side(value: Any) -> int | None:
    """One number of pixels, where a size is given as one or as a square."""
    if isinstance(value, dict):
        value = value.get("shortest_edge") or (value.get("height") if value.get("height") == value.get("width") else 0)
    return value if isinstance(value, int) and value > 0 else None


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a table in JSON; fetch or save the network once more")
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """What the config.json of a folder says.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _table(folder / CONFIG)
