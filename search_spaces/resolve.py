"""From a file's tables to what they mean: the baseline, fixed values, axes and conditions, all checked."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from core.baselines import BaselineConfig
from core.datasets import DATASETS
from core.errors import UnknownNameError, UsageError
from core.models import MODELS
from search_spaces.axis import Axis, Choices, Value
from search_spaces.conditions import Condition, condition_of, flatten, owners_of, require_effect
from search_spaces.document import SpaceTable, complaint
from search_spaces.names import checked, default, is_option, require_known
from search_spaces.tables import build_axis, fixed_fields


def resolve_baseline(table: dict[str, Any], source: str) -> BaselineConfig:
    """Check ``[baseline]``; a name with a colon belongs to the user's own code or torchvision and is taken as it is."""
    for key, registry in (("model", MODELS), ("dataset", DATASETS)):
        name = table.get(key)
        if isinstance(name, str) and ":" not in name and name not in registry:
            raise UnknownNameError(key, name, registry.names(), f"{source}: baseline.{key}: ")
    try:
        return BaselineConfig.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{source}: baseline.{complaint(error, BaselineConfig)}") from None
    except UsageError as error:
        raise UsageError(f"{source}: baseline: {error}") from None


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
