"""Every key of a search-space file as Markdown tables, read from the schema: ``make keys-table`` writes them.

They stand between two marks of docs/own-network.md; a test compares them, so a key that is added is told of there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.complaints import show
from core.config import BaselineConfig, TrialConfig
from core.decompositions import DECOMPOSITIONS
from core.recipes import Recipe
from search_spaces.document import AxisTable, EvaluationTable, SearchDefaults, SpaceTable

BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"
DOCUMENT = Path("docs/own-network.md")
RECIPE = {field.name for field in fields(Recipe)}
KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false", "object": "table"}
LEADING = ("model", "dataset", "checkpoint", "expected_accuracy")
LEFT_OUT = {"options", "ratios"}
"""Fields of a configuration that a file sets by other names."""


def tables() -> Iterator[str]:
    """Lines of Markdown: a table for each part of a file."""
    yield from _table("At the top of the file", SpaceTable)
    yield from _table("`[baseline]`: the original network and its data", BaselineConfig, LEADING)
    yield from _table("`[search]`: how it is searched", SearchDefaults)
    yield from _table("`[evaluation]`: what trials are evaluated on", EvaluationTable)
    yield from _table("`[axes.NAME]`: one thing that varies", AxisTable)
    yield from _table("Names for `[fixed]` and `[axes.NAME]`: what a trial does", TrialConfig)
    yield from _markdown(
        "Names that only some decompositions read",
        ("name", "of", "value", "left out", "meaning"),
        list(_options()),
    )


def _table(title: str, model: type[BaseModel], first: Sequence[str] = ()) -> Iterator[str]:
    schema = model.model_json_schema()
    needed = set(schema.get("required", ()))
    names = [*first, *(name for name in schema["properties"] if name not in {*first, *LEFT_OUT})]
    rows = [
        (f"`{name}`", _value(found), _default(name, found, needed, model), _meaning(found))
        for name, found in ((name, schema["properties"][name]) for name in names)
    ]
    if model is TrialConfig:
        rows.append(
            ("`ratios.PATTERN`", "number, 0 to below 1", "", "for allocation 'per-site': ratio of such producers")
        )
    yield from _markdown(title, ("key", "value", "left out", "meaning"), rows)


def _options() -> Iterator[tuple[str, ...]]:
    """A row for each option; those of the same name and meaning share one."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for decomposition, part in DECOMPOSITIONS.items():
        for name, found in part.model_json_schema()["properties"].items():
            row = (f"`{name}`", _value(found), _default(name, found, (), part), _meaning(found))
            owners.setdefault(row, []).append(decomposition)
    for (name, value, default, meaning), of in sorted(owners.items()):
        every = len(of) == len(DECOMPOSITIONS.names())
        yield name, "every one" if every else ", ".join(f"`{one}`" for one in of), value, default, meaning


def _value(found: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    parts = [part for part in found.get("anyOf", [found]) if part.get("type") != "null"]
    return " or ".join(dict.fromkeys(_kind(part) for part in parts)) if parts else "anything"


def _kind(part: Mapping[str, Any]) -> str:
    if "enum" in part or "const" in part:
        words = part.get("enum", [part.get("const")])
        return ", ".join(f"`{word}`" for word in words if word)
    if part.get("type") == "array":
        inside = KINDS.get(str((part.get("items") or {}).get("type")))
        return f"list of {inside}s" if inside else "list"
    kind = KINDS.get(str(part.get("type")), "table" if "$ref" in part else "number")
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in part else ""
    below = "below " if "exclusiveMaximum" in part else ""
    if low is not None and high is not None and high < 2**60:
        return f"{kind}, {above}{_number(low)} to {below}{_number(high)}"
    return kind if low is None else f"{kind}, {above}{_number(low)}" + ("" if above else " or more")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(name: str, found: Mapping[str, Any], needed: Sequence[str] | set[str], model: type[BaseModel]) -> str:
    if name in needed and (model, name) != (SpaceTable, "name"):
        return "**needed**"
    if model is BaselineConfig and name in RECIPE:
        return "the recipe's"
    default = found.get("default")
    if default in (None, "", [], {}) or isinstance(default, dict):
        return ""
    return f"`{show(default)}`"


def _meaning(found: Mapping[str, Any]) -> str:
    return str(found.get("description", "")).replace("|", "\\|")


def _markdown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from (f"**{title}**", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head))
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def written(text: str) -> str:
    """The text of a page with the tables of today between its marks."""
    before, _, rest = text.partition(BEGIN)
    return "\n".join([before + BEGIN, "", *tables(), END + rest.partition(END)[2]])


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n".join(tables()))
