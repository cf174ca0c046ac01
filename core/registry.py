"""Registries: one part, one file, one ``@register("kebab-name")``, found by scanning a package.

Names are read from the files' source, so that asking for them imports nothing; a part's file is imported when the part
is asked for.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from core.errors import UnknownNameError, UsageError, shortened

T = TypeVar("T")
S = TypeVar("S")


class Registry(Generic[T]):
    """Named parts of one kind (criterion, decomposition, model …).

    Args:
        kind: what a part is called in messages.
        package: whose modules hold the parts; adding a part touches one file only.
        elsewhere: what to write for a name that is not registered and known elsewhere; "" for others.
    """

    def __init__(self, kind: str, package: str, elsewhere: Callable[[str], str] = lambda name: "") -> None:
        self.kind = kind
        self._package = package
        self._elsewhere = elsewhere
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[S], S]:
        """Return the decorator that files a part under ``name``.

        Raises:
            ValueError: a second part has that name, which is a bug.
        """

        def file(part: S) -> S:
            self._load(name)
            if name in self._parts:
                raise ValueError(f"two parts register as {self.kind} {name!r}")
            self._parts[name] = part  # type: ignore[assignment]
            return part

        return file

    def require(self, name: str, where: str = "") -> None:
        """Look whether there is a part called ``name``; nothing is imported.

        Raises:
            UnknownNameError: there is none; the message begins with ``where`` and names the nearest ones.
            UsageError: there is none, and it is known elsewhere; the message says how to write it.
        """
        if name not in self:
            if known := self._elsewhere(name):
                raise UsageError(f"{where}unknown {self.kind} {shortened(repr(name))}: {known}")
            raise UnknownNameError(self.kind, name, self.names(), where)

    def get(self, name: str) -> T:
        """Return the part called ``name``; its file is imported.

        Raises:
            UnknownNameError, UsageError: no such part; see `require`.
        """
        self.require(name)
        self._load(name)
        return self._parts[name]

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        return sorted({*self._declared, *self._parts})

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, part), sorted by name."""
        return ((name, self.get(name)) for name in self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._parts or name in self._declared)

    def _load(self, name: str) -> None:
        """Import the file that declares ``name``, unless that is done or under way."""
        module = self._declared.get(name)
        if module is not None and module not in sys.modules:
            importlib.import_module(module)

    @cached_property
    def _declared(self) -> dict[str, str]:
        """Name -> the module that registers it, as the sources of the package say.

        Raises:
            ValueError: two files of the package register the same name.
        """
        spec = find_spec(self._package)
        folders = [] if spec is None else list(spec.submodule_search_locations or ())
        found: dict[str, str] = {}
        for path in sorted(file for folder in folders for file in Path(folder).glob("*.py")):
            for name in declared_names(path.read_text(encoding="utf-8")):
                if name in found:
                    raise ValueError(f"two parts register as {self.kind} {name!r}")
                found[name] = f"{self._package}.{path.stem}"
        return found


def declared_names(source: str) -> Iterator[str]:
    """The names that a module's ``register…("name")`` calls give, read without running it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func
            word = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if word.startswith("register") and isinstance(node.args[0].value, str):
                yield node.args[0].value
