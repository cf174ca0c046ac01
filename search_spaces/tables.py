"""From the tables of a file to fixed values and axes: every name known, every value of its type and within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import UsageError, shortened
from search_spaces.axis import Axis, Choices, Range, Value, exact, show
from search_spaces.document import AxisTable
from search_spaces.names import PER_SITE, checked, is_option, require_known, within

FINEST = 10**9
"""So many steps of a range differ from one another; finer ones are a continuous range."""


def fixed_fields(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check ``[fixed]``, all but the values of options; the entries of ``ratios`` become ``ratios.PATTERN``."""
    flat = flat_ratios(table, f"{source}: fixed.ratios: ")
    for name in flat:
        require_known(name, f"{source}: fixed.{name}: ")
    return {n: v if is_option(n) else checked(n, v, (), f"{source}: fixed.{n}: ") for n, v in flat.items()}


def flat_ratios(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``table`` with the entries of a table ``ratios`` as ``ratios.PATTERN``."""
    ratios = table.get("ratios", {})
    if not isinstance(ratios, dict):
        raise UsageError(f"{where}{shortened(show(ratios))} is not a table of pattern = ratio")
    rest = {name: value for name, value in table.items() if name != "ratios"}
    return rest | {PER_SITE + pattern: ratio for pattern, ratio in ratios.items()}


def build_axis(name: str, table: AxisTable, owners: Sequence[str], where: str) -> Axis:
    """Build one axis from its table; the values of an option are checked against the decompositions ``owners``."""
    if name == "ratios":
        raise UsageError(f'{where}takes a table; fix it in [fixed.ratios], or vary one: [axes."ratios.PATTERN"]')
    if (table.values is None) == (table.low is None and table.high is None):
        raise UsageError(f"{where}give either values = [...] or low and high")
    if table.values is None:
        return _range(name, table, owners, where)
    if table.step is not None or table.log:
        raise UsageError(f"{where}step and log belong to a range with low and high, not to values")
    if not table.values:
        raise UsageError(f"{where}the axis is empty: list at least one value or remove it")
    values = tuple(checked(name, v, owners, within(where, "values")) for v in table.values)
    seen: set[Value] = set()
    for value in values:
        if value in seen:
            raise UsageError(f"{within(where, 'values')}{shortened(show(value))} is listed twice")
        seen.add(value)
    return Choices(values)


def _range(name: str, table: AxisTable, owners: Sequence[str], where: str) -> Range:
    low = _bound(name, "low", table.low, owners, where)
    high = _bound(name, "high", table.high, owners, where)
    if low > high:
        raise UsageError(f"{where}low = {show(low)} is above high = {show(high)}")
    if table.log and low <= 0:
        raise UsageError(f"{where}low = {show(low)} must be above 0 for log = true")
    return Range(low, high, None if table.step is None else _step(table, low, high, where), table.log)


def _bound(name: str, key: str, given: Any, owners: Sequence[str], where: str) -> int | float:
    if given is None:
        raise UsageError(f"{where}a range needs both low and high; {key} is missing")
    value = checked(name, given, owners, within(where, key))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{within(where, key)}only numbers have a range; use values = [...]")
    return value


def _step(table: AxisTable, low: float, high: float, where: str) -> int | float:
    step, at = table.step, within(where, "step")
    if table.log:
        raise UsageError(f"{where}step and log exclude each other: drop one of them")
    if isinstance(step, bool) or not isinstance(step, int | float):
        raise UsageError(f"{at}{shortened(repr(step))} is not a number")
    if isinstance(low, int) and not isinstance(step, int):
        raise UsageError(f"{at}{step} is not a whole number, as low and high are")
    if not 0 < step < math.inf:
        raise UsageError(f"{at}{step} is not above 0")
    if isinstance(low, float) and (exact(high) - exact(low)) / exact(step) > FINEST:
        raise UsageError(f"{at}{step} makes more than {FINEST:,} values; take a larger step, or none")
    return type(low)(step)
