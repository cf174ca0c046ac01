"""What a tensor read from a file must be before it becomes a weight: plain, dense, of the wanted kind, finite."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import CheckpointError, shortened

PLAIN = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)
"""Number formats that mean the same without a scale that is kept elsewhere."""

COUNTER = "num_batches_tracked"


def require_plain(where: str, key: str, tensor: Tensor) -> None:
    """Refuse a tensor whose numbers are not simply there.

    Args:
        where: the file, in words: the beginning of the message.
        key: the tensor's name.
        tensor: as read.

    Raises:
        CheckpointError: it is quantised, sparse, nested, of another number format such as float8, or has no data.
    """
    if problem := _oddity(tensor):
        raise CheckpointError(f"{where}: {quoted(key)} {problem}")


def _oddity(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "is quantised; save the weights after .dequantize()"
    if tensor.is_nested:
        return "is a nested tensor; save it as ordinary tensors, one a key"
    if tensor.layout != torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')}); save it after .to_dense()"
    if tensor.device.type != "cpu":
        return f"is on the device {tensor.device.type!r} and has no numbers in the file; save the weights from the CPU"
    if tensor.dtype not in PLAIN:
        return f"is {named(tensor)}, whose scale the file does not tell; save the weights as float32 or bfloat16"
    return ""


def require_kind(where: str, key: str, tensor: Tensor, wanted: Tensor) -> None:
    """Refuse real numbers where the network has complex ones, integers where it has fractions, and so on.

    Raises:
        CheckpointError: they are of different kinds; only a batch counter may be any number.
    """
    if kind(tensor) != kind(wanted) and not key.endswith(COUNTER):
        kinds = f"{named(tensor)} in the file, {named(wanted)} in the model"
        raise CheckpointError(f"{where}: {quoted(key)} is {kinds}; use the weights of this network")


def require_finite(where: str, key: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse NaN, infinities, and numbers that become infinite as ``dtype``.

    Raises:
        CheckpointError: there is such a number.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{where}: {quoted(key)} has NaN or infinite values; the training diverged")
    if tensor.dtype == dtype or not dtype.is_floating_point or tensor.is_complex():
        return
    if not bool(torch.isfinite(tensor.to(dtype)).all()):
        large = f"has values too large for the model's {str(dtype).removeprefix('torch.')}"
        raise CheckpointError(f"{where}: {quoted(key)} {large}; use a model of {named(tensor)}, or rescale them")


def kind(tensor: Tensor) -> str:
    """``complex``, ``float`` or ``whole`` (integers and truth values)."""
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "whole"


def named(tensor: Tensor) -> str:
    """The number format of a tensor, such as ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def quoted(key: object, most: int = 80) -> str:
    """A key for a message: on one line, its middle left out where it is long."""
    return shortened(repr(key), most)
