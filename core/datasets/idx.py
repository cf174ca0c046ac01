"""The IDX format of MNIST's files (LeCun, Cortes & Burges): magic number, sizes, then bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import DataError

UBYTE = 8
LARGEST = 2**30
"""More bytes than any such file unpacks to; a packed one may pretend to have any number."""


def read_idx(path: Path) -> Tensor:
    """Read the unsigned bytes in ``path`` as a uint8 tensor of the shape that the file states.

    Raises:
        DataError: the file cannot be read, is no IDX file of bytes, or is not as long as its header says.
    """
    remedy = "delete it, so that it is fetched again, or put an intact copy in its place"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(LARGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != UBYTE:
        raise DataError(f"{path} is not an IDX file of unsigned bytes; {remedy}")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if not shape or len(raw) - start != math.prod(shape):
        raise DataError(f"{path} holds {len(raw)} bytes, not what its header says ({shape}): damaged; {remedy}")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())
