"""What ``obs`` with ``least-squares`` costs on a network of torchvision's, in seconds and in memory.

Run: ``python -m benchmarks.large_network [network] [images] [pixels]``; without arguments resnet50, 64 images of 224
pixels. Weights are random, batch norms have the statistics of noise, and so have the images: what is measured does not
depend on them. Half of all channels go. The reference is one forward pass of the original over all images.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
import torchvision
from torch import nn

from core.compress import compress, prepare

BATCH = 8


def network(name: str, pixels: int) -> nn.Module:
    """An untrained network whose batch norms have seen noise."""
    torch.manual_seed(0)
    made: nn.Module = torchvision.models.get_model(name, weights=None)
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
    made.train()
    with torch.no_grad():
        for _ in range(2):
            made(torch.randn(BATCH, 3, pixels, pixels))
    return made.eval()


def main(name: str = "resnet50", count: str = "64", size: str = "224") -> None:
    """Compress once and print."""
    images, pixels = int(count), int(size)
    net, x = network(name, pixels), torch.randn(images, 3, pixels, pixels)
    start = time.perf_counter()
    with torch.no_grad():
        for part in torch.split(x, BATCH):
            net(part)
    forward = time.perf_counter() - start
    prepared = prepare(net, x[:1])
    print(f"{name}, {images} images of {pixels} px, {torch.get_num_threads()} threads; forward {forward:.1f} s")
    for criterion in ("l1", "obs"):
        start = time.perf_counter()
        compress(prepared, x[:1], ratio=0.5, criterion=criterion, decomposition="least-squares", calibration=x)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{criterion:4} {seconds:7.1f} s, {seconds / forward:5.1f} forward passes, peak {peak:.2f} GB so far")


if __name__ == "__main__":
    main(*sys.argv[1:])
