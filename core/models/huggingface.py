"""Image classifiers of Hugging Face from a folder or the cache: transformers' own code, weights as safetensors only."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import CheckpointError, ModelError, UsageError, first_line
from core.models.optional import optional_package
from core.snapshots import config_of, folder_of, weights_of


class ImageClassifier(nn.Module):
    """A classifier of transformers as other networks are: images (N, C, H, W) to logits (N, classes).

    Attributes:
        network: the network of transformers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The logits alone."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def huggingface_builder(name: str, in_channels: int | None, pretrained: bool) -> Callable[[], nn.Module]:
    """Return a function that builds ``huggingface:PATH`` in float32; its number of classes is its own.

    Code that comes with a model is never run, and nothing is downloaded.

    Raises:
        UsageError: there is no such folder, transformers is missing or knows no such classifier, or ``in_channels`` is
            not what the network takes.
        CheckpointError: its files cannot be read, or the weights are missing or no safetensors.
    """
    transformers = optional_package("transformers", "huggingface", name)
    folder = folder_of(name)
    kind = config_of(folder).get("model_type")
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            known = type(config) in transformers.AutoModelForImageClassification._model_mapping
    except Exception as error:
        raise UsageError(f"model {name!r}: transformers does not know {kind!r} networks: {first_line(error)}") from None
    if not known:
        raise UsageError(f"model {name!r}: transformers has no image classifier of the kind {kind!r}")
    taken = getattr(config, "num_channels", None)
    if in_channels not in (None, taken) and taken is not None:
        raise UsageError(f"model {name!r} takes images of {taken} channels, not {in_channels}: use another dataset")
    if pretrained:
        weights_of(folder)
        return lambda: _filled(transformers, name, folder, config)
    return lambda: _empty(transformers, name, config)


def _empty(transformers: Any, name: str, config: Any) -> nn.Module:
    try:
        with _quiet():
            network = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"model {name!r} cannot be built: {first_line(error)}") from error
    return ImageClassifier(network.float())


def _filled(transformers: Any, name: str, folder: Path, config: Any) -> nn.Module:
    arguments = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    try:
        with _quiet():
            network, told = transformers.AutoModelForImageClassification.from_pretrained(
                folder, config=config, output_loading_info=True, **arguments
            )
    except Exception as error:
        raise CheckpointError(f"the weights in {folder} cannot be loaded: {first_line(error)}") from None
    lacking = sorted({*map(str, told["missing_keys"]), *(str(key[0]) for key in told["mismatched_keys"])})
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise CheckpointError(
            f"the weights in {folder} lack {lacking[0]}{more}, or have it in another shape: they are not those of the"
            f" classifier of {name!r}"
        )
    return ImageClassifier(network)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the screen: no progress bars, no advice."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
