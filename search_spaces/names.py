"""The names a space may set, and the check of one value: fields of `TrialConfig`, options of decompositions.

Nothing is listed by hand: fields, options and bounds are read from the classes, words from the registries, so a
new part or option is known here at once. ``ratios.PATTERN`` sets one entry of the field ``ratios``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from core.allocation import ALLOCATIONS
from core.calibration import CALIBRATIONS, find_source
from core.complaints import sentence, words
from core.config import TrialConfig
from core.criteria import CRITERIA
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError, nearest, shortened
from core.recovery import RECOVERIES
from core.registry import Registry
from search_spaces.axis import Value

REGISTRIES: dict[str, Registry[Any]] = {
    "criterion": CRITERIA,
    "decomposition": DECOMPOSITIONS,
    "allocation": ALLOCATIONS,
    "calibration": CALIBRATIONS,
    "recovery": RECOVERIES,
}
"""The fields whose values are names of registered parts."""

PER_SITE = "ratios."
"""Prefix of an axis that sets the ratio of one glob pattern, for allocation ``per-site``."""

FIELDS = frozenset(TrialConfig.model_fields) - {"options"}


def default(field: str) -> Any:
    """Return what `TrialConfig` takes for ``field`` when it is not given; None for an option."""
    return None if is_option(field) else TrialConfig.model_fields[field].get_default(call_default_factory=True)


def is_option(name: str) -> bool:
    """Whether ``name`` belongs to decompositions and not to the configuration itself."""
    return name not in FIELDS and not name.startswith(PER_SITE)


def knowers(option: str) -> list[str]:
    """Return the decompositions that have an option of that name, sorted."""
    return [name for name, part in DECOMPOSITIONS.items() if option in part.model_fields]


def is_known(name: str) -> bool:
    """Whether ``name`` can be set: a field, ``ratios.PATTERN``, or an option of some decomposition."""
    return name in FIELDS or (name.startswith(PER_SITE) and name != PER_SITE) or bool(knowers(name))


def known_names() -> set[str]:
    """Return every name that can be set."""
    return {*FIELDS, *(option for _, part in DECOMPOSITIONS.items() for option in part.model_fields)}


def require_known(name: str, where: str) -> None:
    """Check that ``name`` can be set.

    Raises:
        UnknownNameError: it cannot; the message begins with ``where`` and lists the nearest names.
    """
    if not is_known(name):
        raise UnknownNameError("name", name, known_names(), where)


def within(where: str, key: str) -> str:
    """Return ``where`` (the beginning of an error's text: ``file: key: ``) moved down to ``key`` in that table."""
    return f"{where.removesuffix(': ')}.{key}: "


def checked(name: str, value: Any, decompositions: Iterable[str], where: str) -> Value:
    """Return ``value`` as the type that ``name`` takes, within its bounds.

    Args:
        name: a field, ``ratios.PATTERN``, or an option.
        value: what a TOML file or ``--set`` gives.
        decompositions: for an option: each of these must accept the value.
        where: prefix of the error's text.

    Raises:
        UsageError: the value is of the wrong type, out of bounds, or a word that is not known.
        UnknownNameError: the value is a part that nobody registered.
    """
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where}{value} is not a finite number")
    if name == "calibration" and isinstance(value, str):
        find_source(value, where)
    elif name in REGISTRIES and isinstance(value, str):
        REGISTRIES[name].require(value, where)
    owners: list[type[BaseModel]] = [TrialConfig]
    if is_option(name):
        owners = [DECOMPOSITIONS.get(d) for d in decompositions]
    field = "ratio" if name.startswith(PER_SITE) else name
    for owner in owners:
        value = _fit(owner, field, value, where)
    result: Value = value
    return result


def _fit(owner: type[BaseModel], field: str, value: Any, where: str) -> Any:
    try:
        return _adapter(owner, field).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "literal_error":
            known = words(owner.model_fields[field].annotation)
            raise UsageError(f"{where}unknown {field} {shortened(repr(value))}; {nearest(str(value), known)}") from None
        raise UsageError(where + sentence(first["type"], first["msg"], value)) from None


@cache
def _adapter(owner: type[BaseModel], field: str) -> TypeAdapter[Any]:
    """The validator of one field, strict: no text for a number, no true for 1; an integer is fine for a float."""
    info = owner.model_fields[field]
    bounded: Any = Annotated[info.annotation, info]
    return TypeAdapter(bounded, config=ConfigDict(strict=True))
