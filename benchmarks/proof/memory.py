"""How much more memory a piece of work has at most than there was before it."""

from __future__ import annotations

import ctypes
import gc
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """Of a piece of work, in MB; nan where the system does not say."""

    megabytes: float = math.nan


@contextmanager
def peak() -> Iterator[Peak]:
    """Measure the work inside, on Linux."""
    found = Peak()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")  # the highest resident set so far becomes the present one
        before = _kilobytes("VmRSS")
    except (OSError, AttributeError):
        before = math.nan
    yield found
    if not math.isnan(before):
        found.megabytes = max(0.0, (_kilobytes("VmHWM") - before) / 1e3)


def _kilobytes(key: str) -> float:
    line = re.search(rf"{key}:\s+(\d+) kB", (PROCESS / "status").read_text())
    return float(line[1]) if line else math.nan
