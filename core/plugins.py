"""A user's own code by name: ``package.module:attribute``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.elsewhere import as_module
from core.errors import ModelError, UnknownNameError, UsageError

OURS = ("core", "search_spaces", "sweep", "dashboards")
"""Names that an import finds here, whatever else is called so."""
ROOT = Path(__file__).resolve().parents[1]


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
    if module_name.endswith(".py") or "/" in module_name:
        raise UsageError(f"{kind} {spec!r}: name the module and not its file: {as_module(module_name)}:{attribute}")
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
        if hiding := _hidden(error.name or ""):
            raise UsageError(f"{kind} {spec!r}: importing {name!r} failed: {hiding}") from error
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            where = "installed packages and the current directory"
            raise UsageError(f"{kind} {spec!r}: there is no module {error.name!r} in {where}") from None
        raise ModelError(f"{kind} {spec!r}: importing {name!r} failed: {error}") from error
    except Exception as error:
        if isinstance(error, ImportError) and (hiding := _hidden(error.name or "")):
            raise UsageError(f"{kind} {spec!r}: importing {name!r} failed: {hiding}") from error
        raise ModelError(f"{kind} {spec!r}: importing {name!r} failed: {type(error).__name__}: {error}") from error


def _hidden(name: str) -> str:
    """Why a module of the current directory cannot be had, where one of our packages has its name; else ""."""
    top = name.partition(".")[0]
    own = next((path for path in (Path(top), Path(f"{top}.py")) if top in OURS and path.exists()), None)
    if own is None or own.resolve() in (ROOT / top, ROOT / f"{top}.py"):
        return ""
    return (
        f"{name!r} is looked for in the package {top!r} of neuron-merging-sweep, which hides {own} of this folder:"
        f" rename yours ({', '.join(OURS)} are taken), or put the network into a module that needs none of it"
    )
