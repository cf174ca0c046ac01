"""torch as it comes: what a notebook has set for its own work changes nothing of what is found and computed here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from core.lazy import torch


@contextlib.contextmanager
def plain_torch(*, exact: bool = True) -> Iterator[None]:
    """New tensors are float32 and on the CPU, and float32 is multiplied as float32 (see `_exact`).

    What was set before is set again afterwards.

    Args:
        exact: False leaves how float32 is multiplied as it is set.
    """
    dtype, elsewhere = torch.get_default_dtype(), torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with (
            _exact() if exact else contextlib.nullcontext(),
            torch.device("cpu") if elsewhere else contextlib.nullcontext(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Multiply float32 as float32, not as TF32 or bfloat16.

    A GPU's convolutions round to TF32 (10 bits) unless somebody says otherwise. That is enough for a class, and not for
    the inner products that a refit solves with, nor for a look whether a cut network computes what the original does.
    """
    backends: Any = torch.backends
    cudnn = backends.cudnn
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # set one by one, by torch 2.9's names; then only these can be read
        with _exact_one_by_one():
            yield
        return
    with _set_again(backends.cuda.matmul, backends.mkldnn.matmul):
        cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            cudnn.allow_tf32 = before[0]
            torch.set_float32_matmul_precision(before[1])


@contextlib.contextmanager
def _exact_one_by_one() -> Iterator[None]:
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    units = (cudnn.conv, cudnn.rnn, backends.cuda.matmul, mkldnn.conv, mkldnn.rnn, mkldnn.matmul)
    with _set_again(*units):
        for unit in units:
            unit.fp32_precision = "ieee"
        yield


@contextlib.contextmanager
def _set_again(*units: Any) -> Iterator[None]:
    """Afterwards the precisions of ``units`` are what they were, each for itself."""
    before = [unit.fp32_precision for unit in units]
    try:
        yield
    finally:
        for unit, precision in zip(units, before, strict=True):
            unit.fp32_precision = precision
