"""What a network is worth and what it costs: accuracy, loss, parameters, MACs, bytes, latency."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.feed import Feed
from core.graph.trace import as_inputs
from core.macs import macs
from core.pixels import Images


@dataclass(frozen=True)
class Evaluation:
    """How a network did on the first images of a set.

    Attributes:
        right: images seen -> how many of them were right, after each batch; never empty.
        loss: sum of the cross-entropies of all images seen, or of the divergences, nats.
    """

    right: dict[int, int]
    loss: float

    @property
    def images(self) -> int:
        """How many were seen."""
        return max(self.right)

    @property
    def accuracy(self) -> float:
        """Top-1 of those seen, in percent."""
        return 100 * self.right[self.images] / self.images

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy or divergence of those seen, in nats."""
        return self.loss / self.images

    @property
    def metrics(self) -> dict[str, float]:
        """What was found, by name."""
        return {"accuracy": self.accuracy, "loss": self.mean_loss}


@dataclass(frozen=True)
class Measurement:
    """How a network did by an evaluator that measures it as a whole.

    Attributes:
        metrics: name -> number, the score first.
        images: how many samples it was measured on.
    """

    metrics: dict[str, float]
    images: int


def evaluate(
    model: nn.Module,
    images: Images,
    labels: Tensor,
    batch_size: int = 500,
    device: str | torch.device = "cpu",
    enough: Callable[[int, int], bool] | None = None,
    reference: Tensor | None = None,
) -> Evaluation:
    """Evaluate ``model`` (in eval mode, on ``device``) batch by batch.

    Args:
        model: maps (n, C, H, W) to logits (n, classes).
        images: normalised (N, C, H, W), N >= 1, or stored ones that become so. Each batch is a copy, so that memory
            which must not be written to is safe from networks that work in place.
        labels: class indices (N,).
        batch_size: images per forward.
        device: where the model is.
        enough: asked after each batch but the last with (images right, images seen); True ends the evaluation there.
        reference: log-probabilities (N, classes) p; the loss is KL(p ‖ q) then, q being the network's.
    """
    correct, seen, loss, right = 0, 0, 0.0, {}
    with torch.inference_mode():
        for logits, target in _batches(model, images, labels, batch_size, device):
            if reference is None:
                loss += float(F.cross_entropy(logits, target, reduction="sum"))
            else:
                wanted = reference[seen : seen + len(target)].to(logits)
                loss += float(F.kl_div(logits.log_softmax(1), wanted, reduction="sum", log_target=True))
            correct += int((logits.argmax(1) == target).sum())
            seen += len(target)
            right[seen] = correct
            if enough is not None and seen < len(images) and enough(correct, seen):
                break
    return Evaluation(right, loss)


def _batches(
    model: nn.Module, images: Images, labels: Tensor, batch_size: int, device: str | torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (n, classes) and labels (n,) of batch after batch; to be used under `torch.inference_mode`.

    A device computes while we go on, until somebody looks at a result, so the next batch is sent before that.
    """
    layout, fitting = fastest_layout(model, images[:1].to(device, copy=True)), Fitting(model)
    feed = Feed(images, batch_size, device, layout)
    for number in range(len(feed)):
        logits = fitting(feed.take(number))
        feed.send(number + 1)
        yield logits, labels[feed.part(number)].to(device)


class Fitting:
    """A network whose batches are halved until they fit into the memory of the device; what it says is the same.

    Args:
        model: in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._most = model, sys.maxsize

    def __call__(self, batch: Tensor) -> Tensor:
        """Outputs (n, …) of a batch (n, …).

        Raises:
            torch.OutOfMemoryError: not even one fits.
        """
        found: list[Tensor] = []
        start = 0
        while start < len(batch) or not found:
            some = batch[start : start + self._most]
            try:
                found.append(self._model(some))
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._most = (len(some) + 1) // 2
                if batch.is_cuda:
                    torch.cuda.empty_cache()
                continue
            start += len(some)
        return found[0] if len(found) == 1 else torch.cat(found)


def logits_of(model: nn.Module, images: Images, batch_size: int = 500, device: str | torch.device = "cpu") -> Tensor:
    """Outputs (N, classes) of ``model``, batch by batch; arguments as in `evaluate`."""
    with torch.inference_mode():
        nobody = torch.zeros(len(images), dtype=torch.long)
        return torch.cat([logits for logits, _ in _batches(model, images, nobody, batch_size, device)]).cpu()


def margins(
    model: nn.Module, images: Images, labels: Tensor, batch_size: int = 500, device: str | torch.device = "cpu"
) -> Tensor:
    """How sure ``model`` is of each image's label: its logit less the largest other one, (N,); negative: wrong.

    Arguments as in `evaluate`.
    """
    found = []
    with torch.inference_mode():
        for logits, target in _batches(model, images, labels, batch_size, device):
            label = target.unsqueeze(1)
            others = logits.scatter(1, label, -torch.inf)
            found.append(logits.gather(1, label).squeeze(1) - others.amax(1))
    return torch.cat(found).cpu()


def accuracy_and_loss(
    model: nn.Module, images: Images, labels: Tensor, batch_size: int = 500, device: str | torch.device = "cpu"
) -> tuple[float, float]:
    """Evaluate ``model`` on all images (see `evaluate`): top-1 in percent and mean cross-entropy in nats."""
    evaluation = evaluate(model, images, labels, batch_size, device)
    return evaluation.accuracy, evaluation.mean_loss


def fastest_layout(model: nn.Module, example: Tensor) -> torch.memory_format:
    """Channels last (1.1 to 1.8 times as fast for small convolutions) where the network takes it, else contiguous.

    A network that calls ``view`` on its feature maps does not take it, which is found out on one image.
    """
    if example.ndim == 4:
        with contextlib.suppress(RuntimeError):
            model(example.contiguous(memory_format=torch.channels_last))
            return torch.channels_last
    return torch.contiguous_format


def sizes(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> dict[str, float]:
    """Count ``params``, ``macs`` per image and ``bytes`` (parameters and buffers as stored).

    ``example`` is a batch of inputs, or of each of several; for ``macs`` see `core.macs`.
    """
    stored = [*model.parameters(), *model.buffers()]
    inputs = as_inputs(example)
    return {
        "params": float(sum(p.numel() for p in model.parameters())),
        "macs": macs(model, *inputs) / len(inputs[0]),
        "bytes": float(sum(t.numel() * t.element_size() for t in stored)),
    }


def latency_ms(model: nn.Module, example: Tensor | tuple[Tensor, ...], repeats: int = 7) -> float:
    """Median time of one forward of ``example`` in milliseconds, over ``repeats``, with this process's threads."""
    times = []
    inputs = as_inputs(example)
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(*inputs)
            if inputs[0].is_cuda:
                torch.cuda.synchronize(inputs[0].device)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])  # the first one warms caches up
