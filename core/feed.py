"""Batches on their way to where they are computed on: the next one travels while the current one is worked on.

A GPU is told what to compute and does it while we go on. In that time the next batch is gathered, put into memory that
the GPU may read by itself (pinned), and copied on a stream of its own, so that neither waits for the other:

    take 0 · compute 0 · send 1 · look at 0 · take 1 · compute 1 · send 2 · …

On the CPU nothing travels: a batch is copied when it is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.pixels import Images, Pixels


def travels(device: torch.device) -> bool:
    """Whether a batch has a way to go that is worth an early start."""
    return device.type == "cuda"


class Feed:
    """Batches of images, in memory of their own: a network may work on them in place.

    Args:
        images: inputs (N, C, H, W), or stored ones that become so where they arrive.
        size: images per batch.
        device: where batches go.
        layout: of a batch in memory.
    """

    def __init__(self, images: Images, size: int, device: str | torch.device, layout: torch.memory_format) -> None:
        self._images, self._size, self._layout = images, size, layout
        self._device = torch.device(device)
        self._early = travels(self._device)
        own = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if own else None  # type: ignore[no-untyped-call]
        self._sent: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return -(-len(self._images) // self._size)

    def part(self, number: int) -> slice:
        """Which images a batch holds."""
        return slice(number * self._size, (number + 1) * self._size)

    def send(self, number: int) -> None:
        """Let a batch travel, if there is one and a way to go; where there is no room for it yet, it stays."""
        if not self._early or number >= len(self):
            return
        try:
            self._sent = {number: self._moved(number)}
        except torch.OutOfMemoryError:
            self._sent = {}

    def take(self, number: int) -> Tensor:
        """A batch (n, C, H, W) on the device, as soon as it is there."""
        moved = self._sent.pop(number, None)
        moved = self._moved(number) if moved is None else moved
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            moved.record_stream(current)  # or its memory would be given away while it is still read here
        inputs = self._images.ready(moved) if isinstance(self._images, Pixels) else moved
        return inputs.contiguous(memory_format=self._layout)

    def _moved(self, number: int) -> Tensor:
        """A copy on the device, as it is stored; on a GPU it may still be on its way."""
        images = self._images
        if isinstance(images, Pixels):
            held, layout = images.held(self.part(number)), torch.preserve_format
        else:
            held, layout = images[self.part(number)], self._layout
        if self._stream is None or held.device.type != "cpu":
            return held.to(self._device, copy=True, memory_format=layout)
        with torch.cuda.stream(self._stream):
            return held.pin_memory().to(self._device, non_blocking=True)
