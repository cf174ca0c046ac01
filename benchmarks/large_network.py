"""What ``obs`` with ``least-squares`` costs on a network of torchvision's, in seconds and in memory.

Run: ``python -m benchmarks.large_network [network] [images] [pixels] [device]``; without arguments resnet50, 64 images
of 224 pixels on the CPU. Weights are random, batch norms have the statistics of noise, and so have the images: what is
measured does not depend on them. Half of all channels go. The reference is one forward pass of the original over all
images.
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


def main(name: str = "resnet50", count: str = "64", size: str = "224", device: str = "cpu") -> None:
    """Compress once and print."""
    images, pixels = int(count), int(size)
    net, x = network(name, pixels).to(device), torch.randn(images, 3, pixels, pixels, device=device)
    with torch.no_grad():
        net(x[:BATCH])  # what only a first call pays for is nobody's
        start = time.perf_counter()
        for part in torch.split(x, BATCH):
            net(part).sum().item()
    forward = time.perf_counter() - start
    start = time.perf_counter()
    prepared = prepare(net, x[:1])
    found = time.perf_counter() - start
    where = torch.cuda.get_device_name() if x.is_cuda else f"{torch.get_num_threads()} threads"
    print(f"{name}, {images} images of {pixels} px, {where}; forward {forward:.2f} s, prepare {found:.2f} s")
    for criterion in ("l1", "obs"):
        start = time.perf_counter()
        compress(prepared, x[:1], ratio=0.5, criterion=criterion, decomposition="least-squares", calibration=x)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 2**30 if x.is_cuda else memory()
        print(f"{criterion:4} {seconds:7.1f} s, {seconds / forward:5.1f} forward passes, peak {peak:.2f} GB so far")


def memory() -> float:
    """The most that this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
