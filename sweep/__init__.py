"""The shell around the core: command line, Ray Tune, Optuna, results store and MLflow."""

import sys as _sys

from sweep.pinned import Pinned as _Pinned

__version__ = "0.1.0"

if _Pinned not in _sys.meta_path:
    _sys.meta_path.insert(0, _Pinned)
