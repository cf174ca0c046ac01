"""A sweep's configurations as columns: per option or field, its different values and which trial has which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.records import TrialRecord
from dashboards.points import flat, written

FIRST = ("sweep", "decomposition", "criterion", "ratio", "allocation", "target")
"""Fields that are shown before the others."""
Scalar = bool | int | float | str
ABSENT = -1


@dataclass(frozen=True)
class Field:
    """One option or field of the configurations.

    Attributes:
        name: of it.
        values: its different values, sorted.
        index: per trial the place of its value in ``values``; -1 where nothing reads the field.
        varied: two trials that both have it differ in it; of an option, two of one decomposition, since each may have
            a default of its own.
    """

    name: str
    values: tuple[Scalar, ...]
    index: tuple[int, ...]
    varied: bool

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def everywhere(self) -> bool:
        """Whether each trial has it."""
        return ABSENT not in self.index


def make_fields(records: Sequence[TrialRecord], extra: Mapping[str, Sequence[str]] | None = None) -> tuple[Field, ...]:
    """Every option and field that a configuration of ``records`` has, and ``extra`` columns, the most telling first."""
    rows = [_flattened(record) for record in records]
    for name, column in (extra or {}).items():
        for row, value in zip(rows, column, strict=True):
            row[name] = value
    names = list(dict.fromkeys(name for row in rows for name in row))
    options = {name for record in records for name in record.options}
    kinds = [record.decomposition for record in records]
    fields = [_field(name, [row.get(name) for row in rows], kinds if name in options else ()) for name in names]
    return tuple(sorted(fields, key=lambda f: (_rank(f.name), not f.varied, f.name)))


def _rank(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _flattened(record: TrialRecord) -> dict[str, Any]:
    """Options and fields of a configuration; a table such as ``ratios`` gives a field for each of its entries."""
    row: dict[str, Any] = {}
    for name, value in flat(record).items():
        if isinstance(value, Mapping):
            row.update({f"{name}.{key}": part for key, part in value.items()})
        else:
            row[name] = value
    return {name: _scalar(value) for name, value in row.items() if value is not None}


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, bool | int | float | str) else written(value)


def _field(name: str, column: Sequence[Scalar | None], kinds: Sequence[str]) -> Field:
    identities = {_identity(value): value for value in column if value is not None}
    places = {identity: place for place, identity in enumerate(sorted(identities))}
    values = tuple(identities[identity] for identity in places)
    index = tuple(ABSENT if v is None else places[_identity(v)] for v in column)
    pairs = {(kind, place) for kind, place in zip(kinds or [""] * len(index), index, strict=True) if place != ABSENT}
    return Field(name, values, index, len(pairs) > len({kind for kind, _ in pairs}))


def _identity(value: Scalar) -> tuple[int, float, str]:
    """Tells values apart and sorts them: numbers by size, then words; ``true`` is not 1."""
    if isinstance(value, bool | str):
        return 1, float(value is True), f"{value!r}"
    return 0, float(value), ""
