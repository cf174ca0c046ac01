"""The names of the search algorithms; what they do is in `sweep.search`, which is not imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.registry import Registry

ALGORITHMS: Registry[Callable[..., Any]] = Registry("search algorithm", "sweep.search")
GRID = "grid"
"""The one that tries everything, and so needs a space without continuous axes."""
