"""Multiply-accumulates of a forward pass, counted by operation while it runs."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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
