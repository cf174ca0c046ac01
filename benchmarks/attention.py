"""A small vision transformer on scikit-learn's digits, its attention cut in ever more of its parts.

Run: ``python -m benchmarks.attention``; no download, two minutes on one core. torchvision's ``VisionTransformer`` with
4 layers of 4 heads (64 channels) reads images of 8×8 pixels in patches of 2×2. Printed as a Markdown table: accuracy on
the 540 test images with a share of the channels of some sets removed; methods that look at images see 256 training
images without their labels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from core.compress import compress, prepare
from core.datasets import load_dataset
from core.measure import accuracy_and_loss

SITES: dict[str, tuple[str, ...] | None] = {
    "values": ("*.v_proj",),
    "queries and keys": ("*.q_proj",),
    "both": ("*_proj",),
    "both, and the MLPs": None,
}
RATIOS = (0.5, 0.75)
METHODS: dict[str, dict[str, Any]] = {
    "`none`, `l1`": {"decomposition": "none"},
    "`most-similar`, `l1`": {"options": {"threshold": 0.45}},
    "`gram`, `l1`": {"decomposition": "gram"},
    "`least-squares`, `l1`": {"decomposition": "least-squares"},
    "`least-squares`, `obs`": {"decomposition": "least-squares", "criterion": "obs"},
}
EPOCHS, BATCH, RATE, IMAGES = 40, 64, 2e-3, 256


def trained(images: Tensor, labels: Tensor) -> nn.Module:
    """The network after a training with AdamW and one cycle; the same one at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(8, 2, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)
        model.conv_proj = nn.Conv2d(1, 64, 2, 2)
        optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        steps = EPOCHS * -(-len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images)).split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimiser.step()
                schedule.step()
    return model.eval()


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    dataset = load_dataset("digits", size=8)
    images, labels = dataset.normalise(dataset.train.images), dataset.train.labels
    test, wanted = dataset.normalise(dataset.test.images), dataset.test.labels
    model = trained(images, labels)
    prepared, whole = prepare(model, images[:1]), sum(p.numel() for p in model.parameters())
    print(f"original: {accuracy_and_loss(model, test, wanted)[0]:.1f} %, {whole:,} parameters\n")
    print(f"| removed | parameters left | {' | '.join(METHODS)} |\n|---|---|{'---|' * len(METHODS)}")
    for what, sites in SITES.items():
        for ratio in RATIOS:
            cells, left = list[str](), 0.0
            for options in METHODS.values():
                calibration = images[:IMAGES]
                result = compress(prepared, images[:1], ratio=ratio, sites=sites, calibration=calibration, **options)
                left = sum(p.numel() for p in result.model.parameters()) / whole
                cells.append(f"{accuracy_and_loss(result.model.eval(), test, wanted)[0]:.1f}")
            print(f"| {ratio:.0%} of {what} | {left:.1%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
