"""A user's own code by name: ``package.module:attribute``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import ModelError, UnknownNameError, UsageError


def import_callable(spec: str, kind: str) -> Callable[..., Any]:
    """Import ``package.module:attribute``; the current directory counts as a place to find it.

    This runs the user's module, as ``python -m`` would, and like it leaves the current directory on the import path.

    Args:
        spec: the two names, joined by a colon.
        kind: what is expected there, for messages: "model", "dataset".

    Raises:
        UsageError: not of that form, no such module, or not callable.
        UnknownNameError: the module has no such attribute.
        ModelError: the module raised an error while it was imported.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{kind} {spec!r}: write package.module:factory, for example my_nets:make_net")
    module = _import(module_name, spec, kind)
    if not hasattr(module, attribute):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UnknownNameError(f"attribute of module {module_name!r}", attribute, known)
    found = getattr(module, attribute)
    if not callable(found):
        raise UsageError(f"{kind} {spec!r}: expected a function that returns a {kind}, found {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _import(name: str, spec: str, kind: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            where = "installed packages and the current directory"
            raise UsageError(f"{kind} {spec!r}: there is no module {error.name!r} in {where}") from None
        raise ModelError(f"{kind} {spec!r}: importing {name!r} failed: {error}") from error
    except Exception as error:
        raise ModelError(f"{kind} {spec!r}: importing {name!r} failed: {type(error).__name__}: {error}") from error
