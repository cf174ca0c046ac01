"""Registries: one part, one file, one ``@register("kebab-name")``, found by scanning a package."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.errors import UnknownNameError

T = TypeVar("T")
S = TypeVar("S")


class Registry(Generic[T]):
    """Named parts of one kind (criterion, decomposition, model …).

    The package's modules are imported on first use, so adding a part touches one file only.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._parts: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[S], S]:
        """Return the decorator that files a part under ``name``; a second part of that name is a bug."""

        def file(part: S) -> S:
            if name in self._parts:
                raise ValueError(f"two parts register as {self.kind} {name!r}")
            self._parts[name] = part  # type: ignore[assignment]
            return part

        return file

    def get(self, name: str) -> T:
        """Return the part called ``name``.

        Raises:
            UnknownNameError: no such part; the message names the nearest ones.
        """
        self._scan()
        if name not in self._parts:
            raise UnknownNameError(self.kind, name, self._parts)
        return self._parts[name]

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._scan()
        return sorted(self._parts)

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, part), sorted by name."""
        return ((name, self._parts[name]) for name in self.names())

    def __contains__(self, name: object) -> bool:
        self._scan()
        return isinstance(name, str) and name in self._parts

    def _scan(self) -> None:
        if self._scanned:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._scanned = True
