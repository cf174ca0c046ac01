"""``--set KEY=VALUE``: change a file's tables, and drop what can no longer occur."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from pydantic import BaseModel

from core.config import BaselineConfig
from core.errors import UnknownNameError, UsageError, shortened
from search_spaces.build import flat_ratios
from search_spaces.conditions import IMAGE_FIELDS, implied, may_read_images
from search_spaces.document import EvaluationTable, SearchDefaults, parse_toml
from search_spaces.names import PER_SITE, checked, default, is_known, is_option, known_names

Document = dict[str, Any]
TABLES: Mapping[str, type[BaseModel]] = {
    "baseline": BaselineConfig,
    "search": SearchDefaults,
    "evaluation": EvaluationTable,
}
BARE_WORD = re.compile(r"[\w.:/*+~-]+")


def overridden(document: Document, changes: Mapping[str, str], source: str) -> Document:
    """Return the tables of ``document`` with ``changes`` (KEY -> VALUE) made; they are checked later, as any file's.

    Raises:
        UsageError: an unknown key, or a value that is not TOML.
    """
    changed = deepcopy(document)
    changed["fixed"] = flat_ratios(changed.get("fixed", {}), f"{source}: fixed.ratios: ")
    for key, text in changes.items():
        where = f"{source}: {key}: "
        _change(changed, key, parse_value(text, where), where)
    while dropped := [(table, name) for table, name in _impossible(changed) if name not in changes]:
        for table, name in dropped:
            del changed[table][name]
    _narrow_conditions(changed, changes)
    return changed


def parse_value(text: str, where: str = "") -> Any:
    """Read one TOML value; a bare word such as ``l2`` or ``./net.safetensors`` is text.

    Raises:
        UsageError: it is neither; the message begins with ``where``.
    """
    try:
        found = parse_toml(f"value = {text}", where)
    except tomllib.TOMLDecodeError:
        if BARE_WORD.fullmatch(text):
            return text
        found = {}
    if set(found) != {"value"}:
        raise UsageError(f'{where}{shortened(repr(text))} is not one TOML value such as 0.5, [0.1, 0.2] or "l1"')
    return found["value"]


def _change(document: Document, key: str, value: Any, where: str) -> None:
    head, dot, rest = key.partition(".")
    if dot and head in TABLES:
        document[head] = {**document.get(head, {}), rest: value}
        return
    if not is_known(key):
        keys = {f"{table}.{field}" for table, model in TABLES.items() for field in model.model_fields}
        raise UnknownNameError("key", key, keys | known_names(), where)
    fixed, axes = document["fixed"], document["axes"]
    if key == "ratios":  # replaces them all
        for name in [name for name in {**fixed, **axes} if name.startswith(PER_SITE)]:
            fixed.pop(name, None)
            axes.pop(name, None)
    fixed.pop(key, None)
    if _varies(key, value):
        condition = {"when": axes[key]["when"]} if "when" in axes.get(key, {}) else {}
        axes[key] = {**condition, **(value if isinstance(value, dict) else {"values": value})}
        return
    axes.pop(key, None)
    document["fixed"] = flat_ratios({**fixed, key: value}, where)


def _varies(name: str, value: Any) -> bool:
    """Whether ``value`` makes an axis of ``name``; a list does not where the name itself takes a list (``sites``)."""
    if not isinstance(value, list):
        return isinstance(value, dict) and name != "ratios"
    try:
        return is_option(name) or not checked(name, value, (), "")
    except UsageError:
        return True


def _impossible(document: Document) -> Iterator[tuple[str, str]]:
    """Find what nothing reads any more: (table, name)."""
    for table in ("axes", "fixed"):
        for name, entry in document[table].items():
            when = entry.get("when", {}) if table == "axes" else {}
            needs = [*when.items(), *implied(name).items()]
            unread = name in IMAGE_FIELDS and not may_read_images(partial(_takes, document))
            if unread or not all(any(_takes(document, p, v) for v in values) for p, values in needs):
                yield table, name


def _takes(document: Document, name: str, value: Any) -> bool:
    """Whether ``name`` can be ``value``; a malformed axis may, so that the check of the tables gets to see it."""
    axis, fixed = document["axes"].get(name), document["fixed"]
    if axis is None:
        return bool(value == (fixed[name] if name in fixed else default(name)))
    return value in axis["values"] if isinstance(axis.get("values"), list) else True


def _narrow_conditions(document: Document, changes: Collection[str]) -> None:
    """Take out of each condition the values that a changed name no longer has."""
    for axis in document["axes"].values():
        for parent in set(axis.get("when", {})) & set(changes):
            axis["when"][parent] = [v for v in axis["when"][parent] if _takes(document, parent, v)]
