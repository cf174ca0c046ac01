"""Packages that only some networks need: imported when such a network is asked for."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from core.errors import UsageError, first_line


def optional_package(package: str, extra: str, model: str) -> Any:
    """Import a package that is not a dependency.

    Args:
        package: its name.
        extra: of this distribution, which brings it.
        model: what it is needed for.

    Raises:
        UsageError: it is not installed, or does not work here.
    """
    install = f"pip install 'neuron-merging-sweep[{extra}]'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = error.name or package
        raise UsageError(f"model {model!r} needs the package {missing!r}, which is not installed: {install}") from None
    except Exception as error:
        raise UsageError(
            f"model {model!r} needs the package {package!r}, which cannot be imported ({first_line(error)}): {install}"
        ) from None
