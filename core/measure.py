"""What a network is worth and what it costs: accuracy, loss, parameters, MACs, bytes, latency."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.graph.trace import as_inputs
from core.pixels import Images, Pixels


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
    """Logits (n, classes) and labels (n,) of batch after batch; to be used under `torch.inference_mode`."""
    layout, fitting = fastest_layout(model, images[:1].to(device, copy=True)), Fitting(model)
    for start in range(0, len(images), batch_size):
        stop = start + batch_size
        if isinstance(images, Pixels):
            batch = images.batch(start, stop, device).contiguous(memory_format=layout)
        else:
            batch = images[start:stop].to(device, copy=True, memory_format=layout)
        yield fitting(batch), labels[start:stop].to(device)


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

    ``example`` is a batch of inputs, or of each of several; for ``macs`` see `macs`.
    """
    stored = [*model.parameters(), *model.buffers()]
    inputs = as_inputs(example)
    return {
        "params": float(sum(p.numel() for p in model.parameters())),
        "macs": macs(model, *inputs) / len(inputs[0]),
        "bytes": float(sum(t.numel() * t.element_size() for t in stored)),
    }


def macs(model: nn.Module, *inputs: Any) -> float:
    """Multiply-accumulates of one forward pass: convolutions, matrix products, attention and recurrent layers.

    They are those of the definition, whichever kernel computes it: masked attention counts in full, a bilinear layer
    once per weight and row. Everything else counts as nothing: biases, norms, activations, poolings, gates and sums,
    embeddings, interpolation and sampling (``grid_sample``, ``deform_conv2d``), distances, FFTs, decompositions and
    solvers, sparse and quantised kernels, and kernels that are not torch's own.
    """
    with torch.no_grad(), plain_attention(), FlopCounter() as counter:
        model(*inputs)
    return float(counter.flops / 2)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keep transformer layers off their fast path: one kernel that does a whole layer, whose parts nobody sees."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """QKᵀ and its product with V, for q (…, T, E), k (…, S, E), v (…, S, Ev); k and v may have fewer heads than q."""
    return 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _recurrent(x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """Each matrix of every layer and direction, once per row of x, which is (T, N, in), or (rows, in) if packed."""
    return 2 * x.shape[:-1].numel() * sum(w.numel() for w in weights if w.dim() == 2)


def _recurrent_layer(x: Tensor, w_input: Tensor, w_hidden: Tensor, *_: Any, **__: Any) -> int:
    """One layer in one direction."""
    return _recurrent(x, (w_input, w_hidden))


def _trilinear(*args: Any, **_: Any) -> int:
    """One per element of the product of three tensors, each with new axes: for a bilinear layer, rows·out·in·in."""
    seen: list[Tensor] = list(args[:3])
    for i, axes in enumerate(args[3:6]):
        for axis in axes:
            seen[i] = seen[i].unsqueeze(axis)
    shape: list[int] = [max(sides) for sides in zip(*(t.shape for t in seen), strict=True)]
    return 2 * math.prod(shape)


def _grouped(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """A matrix product per group; where both have the groups on one matrix axis, these are parts of one product."""
    groups = a.shape[0] if a.dim() == b.dim() == 3 else 1
    return 2 * groups * a.shape[-2:].numel() * b.shape[-1]


OWN_FORMULAS: dict[str, Callable[..., int]] = {
    "mv": lambda a, b, **_: 2 * a.numel(),
    "addmv": lambda bias, a, b, **_: 2 * a.numel(),
    "dot": lambda a, b, **_: 2 * a.numel(),
    "vdot": lambda a, b, **_: 2 * a.numel(),
    "addbmm": lambda bias, a, b, **_: 2 * a.numel() * b.shape[-1],
    "_addmm_activation": lambda bias, a, b, **_: 2 * a.numel() * b.shape[-1],
    "_int_mm": lambda a, b, **_: 2 * a.numel() * b.shape[-1],
    "conv_tbc": lambda x, weight, *_, out_val, **__: 2 * out_val.shape[:2].numel() * weight.numel(),
    "_grouped_mm": _grouped,
    "_trilinear": _trilinear,
    "_cudnn_rnn": _recurrent,
    "miopen_rnn": _recurrent,
    "mkldnn_rnn_layer": _recurrent_layer,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
}
"""By name of torch's operation: what torch's own table lacks, or has for as many heads of k and v as of q only."""


@functools.cache
def formulas() -> dict[Any, Callable[..., int]]:
    """The formula of every operation that counts; an older torch lacks some of them."""
    own = {getattr(torch.ops.aten, name): f for name, f in OWN_FORMULAS.items() if hasattr(torch.ops.aten, name)}
    return {**flop_formulas(), **own}


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """Torch's flop formulas by operation.

    # NOTE: their module imports triton, 70 MB in the driver and in every worker, only to recognise kernels written in
    # it; it does without where triton is not installed, which is what we feign.
    """
    kernels, module = "triton.runtime.jit", "torch.utils.flop_counter"
    feign = not {kernels, module} & sys.modules.keys()
    log = logging.getLogger(module)
    before = log.disabled
    if feign:
        sys.modules[kernels], log.disabled = None, True  # type: ignore[assignment]  # how an import is forbidden
    try:
        from torch.utils.flop_counter import flop_registry
    finally:
        if feign:
            del sys.modules[kernels]
            log.disabled = before
    return flop_registry


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the formulas of all operations under it, two flops for each multiply-accumulate.

    # NOTE: torch's `FlopCounterMode` imports torch's compiler at its first operation, 85 MB and more than a second in
    # the driver and in every worker; and to it, attention on the CPU and recurrent layers are nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._formulas = formulas()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to wrap this class for its compiler."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one operation; one without a formula is counted by its parts, where it has some."""
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


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
