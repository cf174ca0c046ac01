"""Where a search of ratios per layer begins: the answers of allocation ``budget`` at several sizes."""

from __future__ import annotations

from fnmatch import fnmatchcase

from core.compress import Result
from core.config import TrialConfig
from core.errors import UsageError
from core.trial import compress_trial
from core.workbench import Workbench
from search_spaces import SearchSpace
from search_spaces.axis import Axis, Range, Value
from search_spaces.names import PER_SITE

LEFT = (0.6, 0.4, 0.25, 0.15, 0.09, 0.05)
"""Shares of the parameters that are left."""


def budget_hints(space: SearchSpace, bench: Workbench) -> list[TrialConfig]:
    """What budgets of each of the sizes `LEFT` spend on the layers, as the nearest configurations of ``space``.

    All of its axes are ratios (see `search_spaces.document.SearchDefaults`). A size that cannot be reached is left out.
    """
    fixed = space.config({name: nearest_on(axis, 0.0) for name, axis in space.axes.items()}).as_json()
    found: dict[str, TrialConfig] = {}
    for left in LEFT:
        budget = TrialConfig.parse({**fixed, "allocation": "budget", "ratio": 1 - left, "ratios": {}})
        try:
            result = compress_trial(budget, bench)
        except UsageError:
            continue
        ratios = {name: share_removed(result, name.removeprefix(PER_SITE)) for name in space.axes}
        chosen = space.config({name: nearest_on(axis, ratios[name]) for name, axis in space.axes.items()})
        found.setdefault(chosen.key, chosen)
    return list(found.values())


def share_removed(result: Result, pattern: str) -> float:
    """The share of channels removed from the first set with a producer that matches ``pattern``; 0 if there is none."""
    for site in result.sites:
        if any(fnmatchcase(producer, pattern) for producer in site.producers):
            return 1 - len(site.kept) / site.size
    return 0.0


def nearest_on(axis: Axis, value: float) -> Value:
    """The number on an axis of numbers that is nearest to ``value``."""
    if not isinstance(axis, Range):
        return min(axis.values, key=lambda known: abs(float(known) - value))  # type: ignore[arg-type]
    if axis.count is None:
        return min(max(value, axis.low), axis.high)
    last = axis.at(axis.count - 1)
    step = (last - axis.low) / max(1, axis.count - 1) or 1
    return axis.at(min(axis.count - 1, max(0, round((value - axis.low) / step))))
