"""A search-space file to start from, written for one network: what was found out of it, and a grid that fits."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.evaluators.base import CLASSIFICATION

if TYPE_CHECKING:
    from core.survey import Survey

WIDTH = 118
NAMED = 12
"""Layers at most that are named for one reason."""
MOST_SECONDS = 1200.0
"""A grid that would take longer gives way to a smaller one."""
SPENT = 0.15
"""A budget may leave so little where all sets together can come below it."""
RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
CRITERIA, DECOMPOSITIONS, ALLOCATIONS = ["l1", "obs"], ["most-similar", "least-squares"], ["uniform", "budget"]


@dataclass(frozen=True)
class Start:
    """A file to start from.

    Attributes:
        text: of the file.
        trials: how many it has.
        seconds: how long they take about.
    """

    text: str
    trials: int
    seconds: float


def started(
    baseline: Mapping[str, Any],
    found: Survey,
    workers: int,
    facts: Mapping[str, str],
    advice: Mapping[str, str],
    evaluation: Mapping[str, str],
) -> Start:
    """Write a space for a network.

    Args:
        baseline: keys of its ``[baseline]`` table.
        found: of the network.
        workers: how many trials run at the same time.
        facts: key of ``[baseline]`` -> what is said behind it.
        advice: table -> what is said above it.
        evaluation: keys of its ``[evaluation]`` table.
    """
    axes = chosen_axes(found, workers)
    trials = _count(axes)
    seconds = found.expected(trials, workers)
    what = f"{baseline['model']} on {baseline['dataset']}"
    lines = [f"# {what}. All keys: docs/own-network.md.", "", f"description = {_value(what)}", ""]
    lines += [*_remarks(advice.get("baseline", "")), "[baseline]"]
    for key, value in baseline.items():
        line = f"{key} = {_value(value)}"
        lines.append(f"{line}  # {facts[key]}" if key in facts else line)
    lines += ["", *_remarks(advice.get("evaluation", "")), "[evaluation]"]
    lines += [f"{key} = {_value(value)}" for key, value in evaluation.items() if value != CLASSIFICATION]
    lines.append("")
    for text in (*structure(found), advice.get("axes", ""), pace(found, trials, seconds, workers)):
        lines += _remarks(text)
    lines += ["[axes]", *(f"{name} = {{ values = {_value(values)} }}" for name, values in axes.items())]
    return Start("\n".join(lines) + "\n", trials, seconds)


def chosen_axes(found: Survey, workers: int) -> dict[str, list[Any]]:
    """The largest of three grids that is done in `MOST_SECONDS`, or else the smallest."""
    allocations = ALLOCATIONS if found.least <= SPENT else ALLOCATIONS[:1]
    full: dict[str, list[Any]] = {
        "ratio": RATIOS,
        "criterion": CRITERIA,
        "decomposition": DECOMPOSITIONS,
        "allocation": allocations,
    }
    half = full | {"ratio": RATIOS[::2], "criterion": CRITERIA[1:]}
    least = half | {"decomposition": DECOMPOSITIONS[1:], "allocation": allocations[-1:]}
    for axes in (full, half):
        if found.expected(_count(axes), workers) <= MOST_SECONDS:
            return axes
    return least


def structure(found: Survey) -> Iterator[str]:
    """What can be cut and what is left alone, a sentence each."""
    channels = sum(one.size for one in found.sets)
    sets = "one channel set" if len(found.sets) == 1 else f"{len(found.sets)} channel sets"
    yield (
        f"{sets} of {channels:,} channels can be cut; with one channel in each, {100 * found.least:.1f} % of the"
        f" {found.params:,.0f} parameters are left."
    )
    reasons = defaultdict(list)
    for layer, reason in found.skipped.items():
        reasons[reason].append(layer)
    for reason, layers in reasons.items():
        more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
        yield f"Left alone: {', '.join(layers[:NAMED])}{more} ({reason})."


def pace(found: Survey, trials: int, seconds: float, workers: int) -> str:
    """How many trials there are, and how long they take about."""
    minutes = "less than a minute" if seconds < 60 else f"about {round(seconds / 60)} min"
    return (
        f"{trials} trials. One takes about {found.seconds:.2g} s on a core of this machine, all of them {minutes} on"
        f" {workers} workers."
    )


def _count(axes: Mapping[str, list[Any]]) -> int:
    count = 1
    for values in axes.values():
        count *= len(values)
    return count


def _remarks(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _value(value: Any) -> str:
    """A value as TOML writes it; JSON's strings, numbers and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)
