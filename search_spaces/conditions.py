"""When an axis counts: the conditions a file states, and those that follow from what an option belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.complaints import show
from core.config import READ_BY, image_readers
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError, nearest, shortened
from search_spaces.axis import Axis, Choices, Value
from search_spaces.names import PER_SITE, default, is_option, knowers, within

Condition = dict[str, tuple[Value, ...]]
"""A conjunction: axis -> the values of it under which something counts."""

PER_SITE_ALLOCATION = "per-site"
"""The allocation that reads ``ratios``."""

IMAGE_FIELDS = ("calibration", "calibration_images", "calibration_copies")
"""Fields that only count where a configuration reads calibration images."""


Takes = Callable[[str, Value], bool]
"""Whether a field or option can have a value somewhere in a space."""


def implied(name: str) -> Condition:
    """What goes without saying: an option needs a decomposition that has it, and some fields a part that reads them."""
    if is_option(name):
        return {"decomposition": tuple(knowers(name))}
    if name in READ_BY:
        owner, readers = READ_BY[name]
        return {owner: tuple(readers())}
    return {"allocation": (PER_SITE_ALLOCATION,)} if name.startswith(PER_SITE) else {}


def may_read_images(takes: Takes) -> bool:
    """Whether some configuration of a space looks at calibration images."""
    return any(takes(name, value) for name, values in image_readers().items() for value in values)


def owners_of(option: str, named: Sequence[Any] | None, decompositions: Axis, where: str) -> list[str]:
    """Return the decompositions for which an option counts.

    Args:
        option: its name.
        named: the decompositions in the condition of its axis, if there is such a condition.
        decompositions: all that the space tries.
        where: prefix of the error's text.

    Raises:
        UsageError: one of those named does not have the option, or none of the space's does.
        UnknownNameError: one of those named is no decomposition.
    """
    able = knowers(option)
    hint = f"{option!r} is an option of {' and '.join(able)}"
    for name in named or ():
        if name not in DECOMPOSITIONS:
            raise UnknownNameError(
                "decomposition", str(name), DECOMPOSITIONS.names(), within(where, "when.decomposition")
            )
        if name not in able:
            raise UsageError(f"{within(where, 'when.decomposition')}{name!r} has no such option; {hint}")
    if named is not None:
        return list(named)
    found = [name for name in able if name in decompositions]
    if not found:
        raise UsageError(f"{where}no decomposition of this space has this option; {hint}")
    return found


def condition_of(
    name: str, when: Mapping[str, Sequence[Any]], fixed: Mapping[str, Value], axes: Mapping[str, Axis], where: str
) -> Condition:
    """Check the condition ``when`` of axis ``name`` and add what goes without saying (see `implied`).

    Raises:
        UsageError: it names something that is no axis (nor fixed), or a value that axis never takes.
    """
    condition: Condition = {}
    for parent, given in when.items():
        at = within(where, f"when.{parent}")
        if parent not in axes and parent not in fixed:
            raise UsageError(f"{at}there is no axis {parent!r}; {nearest(parent, {*axes, *fixed} - {name})}")
        condition[parent] = _reachable(given, axes[parent] if parent in axes else Choices((fixed[parent],)), at)
    for parent, needed in implied(name).items():
        if parent in axes:
            condition.setdefault(parent, tuple(value for value in needed if value in axes[parent]))
    return {parent: values for parent, values in condition.items() if parent in axes}


def _reachable(given: Sequence[Any], parent: Axis, where: str) -> tuple[Value, ...]:
    if not given:
        raise UsageError(f"{where}the list is empty, so the condition never holds; name a value or remove it")
    if parent.count is None:
        raise UsageError(f"{where}that axis is continuous; a condition needs one with values or a step")
    values = tuple(tuple(v) if isinstance(v, list) else v for v in given)
    for value in values:
        if value not in parent:
            hint = f"; {nearest(show(value), map(show, parent.values))}" if isinstance(parent, Choices) else ""
            taken = f"{shortened(show(value))} ({shortened(parent.describe())})"
            raise UsageError(f"{where}that axis never takes {taken}{hint}")
    return values


def require_effect(names: Sequence[str], fixed: Mapping[str, Value], axes: Mapping[str, Axis], source: str) -> None:
    """Check that something of the space would read each of ``names`` where it is set.

    Raises:
        UsageError: nothing would ever read one of them.
    """

    def takes(field: str, value: Value) -> bool:
        return value in axes[field] if field in axes else fixed.get(field, default(field)) == value

    for name in names:
        where = f"{source}: {'axes' if name in axes else 'fixed'}.{name}: "
        if name.startswith(PER_SITE) and not takes("allocation", PER_SITE_ALLOCATION):
            raise UsageError(f"{where}only allocation = {PER_SITE_ALLOCATION!r} reads ratios; set it or remove them")
        if name in READ_BY and not any(takes(READ_BY[name][0], value) for value in READ_BY[name][1]()):
            owner, readers = READ_BY[name][0], " or ".join(map(repr, READ_BY[name][1]()))
            if readers == repr(None):
                raise UsageError(f"{where}{owner} decides that here; remove one of the two")
            raise UsageError(f"{where}only {owner} = {readers} reads {name}; set it or remove this")
        if name in IMAGE_FIELDS and not may_read_images(takes):
            hint = f"{' and '.join(map(str, image_readers()['decomposition']))} would, or bn_recalibrate = true"
            raise UsageError(f"{where}no configuration of this space reads calibration images; {hint}")


def flatten(conditions: Mapping[str, Condition], source: str) -> dict[str, Condition]:
    """Add to each axis's condition those of the axes it depends on, transitively.

    Afterwards an axis counts exactly when every axis in its condition counts and has one of the listed values.

    Raises:
        UsageError: conditions run in a circle, or contradict each other, so that an axis would never count.
    """
    flat: dict[str, Condition] = {}
    for name in conditions:
        _flatten(name, (), conditions, flat, source)
    return {name: flat[name] for name in conditions}


def _flatten(
    name: str, path: tuple[str, ...], conditions: Mapping[str, Condition], flat: dict[str, Condition], source: str
) -> Condition:
    where = f"{source}: axes.{name}.when: "
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise UsageError(f"{where}the conditions run in a circle: {circle}")
    if name in flat:
        return flat[name]
    joined = dict(conditions[name])
    for parent in conditions[name]:
        for other, values in _flatten(parent, (*path, name), conditions, flat, source).items():
            common = tuple(v for v in joined.get(other, values) if v in values)
            if not common:
                needed = " or ".join(map(show, values))
                raise UsageError(f"{where}can never hold, since axis {parent!r} itself needs {other} = {needed}")
            joined[other] = common
    return flat.setdefault(name, joined)
