"""From a file's tables to what they mean: the baseline, fixed values, axes and conditions, all checked.

Every name is known, every value of its type and within bounds, every condition can hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from core.complaints import complaint, show
from core.config import BaselineConfig
from core.decompositions import DECOMPOSITIONS
from core.errors import UnknownNameError, UsageError, shortened
from core.parts import DATASETS, MODELS
from search_spaces.axis import Axis, Choices, Range, Value, exact
from search_spaces.conditions import Condition, condition_of, flatten, owners_of, require_effect
from search_spaces.document import AxisTable, SpaceTable
from search_spaces.names import PER_SITE, checked, default, is_option, require_known, within

FINEST = 10**9
"""So many steps of a range differ from one another; finer ones are a continuous range."""


def resolve_baseline(table: dict[str, Any], source: str) -> BaselineConfig:
    """Check ``[baseline]``; a name with a colon belongs to the user's own code or torchvision and is taken as it is.

    Raises:
        UnknownNameError: nobody registered the model or the dataset.
        UsageError: anything else is wrong; the message begins with ``source``.
    """
    for key, registry in (("model", MODELS), ("dataset", DATASETS)):
        name = table.get(key)
        if isinstance(name, str) and ":" not in name:
            registry.require(name, f"{source}: baseline.{key}: ")
    try:
        return BaselineConfig.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{source}: baseline.{complaint(error, BaselineConfig)}") from None
    except UsageError as error:
        raise UsageError(f"{source}: baseline: {error}") from None


def resolve_defaults(table: Mapping[str, Mapping[str, Any]], source: str) -> dict[str, dict[str, Value]]:
    """Check ``[defaults]``: for each decomposition named, options of it.

    Raises:
        UnknownNameError: there is no such decomposition or option.
        UsageError: a value is refused.
    """
    found: dict[str, dict[str, Value]] = {}
    for decomposition, options in table.items():
        where = f"{source}: defaults.{decomposition}: "
        DECOMPOSITIONS.require(decomposition, where)
        known = DECOMPOSITIONS.get(decomposition).model_fields
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {decomposition!r}", name, known, where)
        found[decomposition] = {n: checked(n, v, [decomposition], within(where, n)) for n, v in options.items()}
    return found


def resolve(table: SpaceTable, source: str) -> tuple[dict[str, Value], dict[str, Axis], dict[str, Condition]]:
    """Check fixed values, axes and conditions.

    Returns:
        (fixed values, axes in the file's order, axis -> its condition, transitively complete).

    Raises:
        UsageError: the first thing that is wrong, with ``source``, the key and the nearest known word.
    """
    if not table.axes:
        raise UsageError(f"{source}: axes: there are none, so nothing would vary; add a table such as [axes.ratio]")
    fixed = fixed_fields(table.fixed, source)
    for name in table.axes:
        require_known(name, f"{source}: axes.{name}: ")
        if name in fixed:
            raise UsageError(f"{source}: axes.{name}: is also in [fixed]; keep one of the two")
    axes = {n: build_axis(n, t, (), f"{source}: axes.{n}: ") for n, t in table.axes.items() if not is_option(n)}
    decompositions = axes.get("decomposition") or Choices((fixed.get("decomposition", default("decomposition")),))
    for name in filter(is_option, fixed):
        where = f"{source}: fixed.{name}: "
        fixed[name] = checked(name, fixed[name], owners_of(name, None, decompositions, where), where)
    for name in filter(is_option, table.axes):
        where = f"{source}: axes.{name}: "
        owners = owners_of(name, table.axes[name].when.get("decomposition"), decompositions, where)
        axes[name] = build_axis(name, table.axes[name], owners, where)
    axes = {name: axes[name] for name in table.axes}
    require_effect([*fixed, *axes], fixed, axes, source)
    own = {n: condition_of(n, t.when, fixed, axes, f"{source}: axes.{n}: ") for n, t in table.axes.items()}
    return fixed, axes, flatten(own, source)


def fixed_fields(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check ``[fixed]``, all but the values of options; the entries of ``ratios`` become ``ratios.PATTERN``."""
    flat = flat_ratios(table, f"{source}: fixed.ratios: ")
    for name in flat:
        require_known(name, f"{source}: fixed.{name}: ")
    return {n: v if is_option(n) else checked(n, v, (), f"{source}: fixed.{n}: ") for n, v in flat.items()}


def flat_ratios(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``table`` with the entries of a table ``ratios`` as ``ratios.PATTERN``.

    Raises:
        UsageError: ``ratios`` is not a table.
    """
    ratios = table.get("ratios", {})
    if not isinstance(ratios, dict):
        raise UsageError(f"{where}{shortened(show(ratios))} is not a table of pattern = ratio")
    rest = {name: value for name, value in table.items() if name != "ratios"}
    return rest | {PER_SITE + pattern: ratio for pattern, ratio in ratios.items()}


def build_axis(name: str, table: AxisTable, owners: Sequence[str], where: str) -> Axis:
    """Build one axis from its table; the values of an option are checked against the decompositions ``owners``.

    Raises:
        UsageError: the table is neither a list of different values nor a range, or a value is refused.
    """
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
