"""The shell around the core: command line, Ray Tune, Optuna, results store and MLflow.

From Python: ``from sweep import run; result = run("digits-quick", samples=50); result.front``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sweep.pinned import Pinned

if TYPE_CHECKING:
    from sweep.api import SweepResult, load, run

__all__ = ["SweepResult", "load", "run"]
__version__ = "0.1.0"

if Pinned not in sys.meta_path:
    sys.meta_path.insert(0, Pinned)


def __getattr__(name: str) -> Any:  # the command line needs none of it
    if name in __all__:
        return getattr(import_module("sweep.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
