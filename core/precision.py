"""Autocast: forward passes in half precision where torch holds that safe, for an evaluation alone.

Weights stay as they are, and outputs come back as float32, so what an evaluator computes of them is as exact as ever.
Nothing else runs under it: channels are found, chosen, merged and refitted, and latencies are measured, as always.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.errors import UsageError, first_line
from core.records import Precision

TYPES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def autocasting(model: nn.Module, precision: Precision | None, device: str | torch.device) -> Iterator[None]:
    """While this lasts, calls of ``model`` run under torch's autocast, and give float32 where that gave less.

    Args:
        model: on ``device``; parts of it that are called by themselves run as always.
        precision: None: nothing changes.
        device: of its inputs.

    Raises:
        UsageError: the device does not compute in this type.
    """
    if precision is None:
        yield
        return
    kind, dtype = torch.device(device).type, TYPES[precision]
    _require(kind, precision)
    running: list[ExitStack] = []

    def begin(*_: Any) -> None:
        running.append(ExitStack())
        running[-1].enter_context(torch.autocast(kind, dtype))

    def end(_: nn.Module, __: Any, outputs: Any) -> Any:
        running.pop().close()
        return pytree.tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.dtype == dtype else x, outputs)

    hooks = (model.register_forward_pre_hook(begin), model.register_forward_hook(end, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _require(kind: str, precision: Precision) -> None:
    """Look whether autocast does anything: torch warns of a type that it does not know on a device, and goes on.

    Raises:
        UsageError: it does nothing there.
    """
    try:
        with warnings.catch_warnings(action="error"), torch.autocast(kind, TYPES[precision]):
            on = torch.is_autocast_enabled(kind)
        problem = "" if on else "torch leaves it off there"
    except (RuntimeError, UserWarning) as error:
        problem = first_line(error)
    if problem:
        raise UsageError(
            f"evaluation.autocast = {precision!r} does not work on this machine's {kind} ({problem}): leave it out, or"
            " take the other type"
        )
