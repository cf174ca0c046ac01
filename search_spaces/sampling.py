"""Ways through a space: count it, enumerate it, draw from it, or let an optimiser pick.

All of them walk the axes in an order in which an axis comes after those it depends on, and skip an axis whose
condition does not hold. What is picked is an *assignment*, axis -> value; two different assignments are two
different configurations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from core.errors import UsageError
from search_spaces.axis import Choices, SuggestingTrial, Value
from search_spaces.conditions import IMAGE_FIELDS, needs_images
from search_spaces.document import MOST_TRIALS
from search_spaces.names import PER_SITE, is_option

if TYPE_CHECKING:
    from core.config import TrialConfig
    from search_spaces.schema import SearchSpace

Assignment = dict[str, Value]

PATIENCE = 1000
"""Draws in a row without a new assignment after which a finite space is enumerated instead."""


def counts(space: SearchSpace, name: str, assignment: Mapping[str, Value]) -> bool:
    """Whether axis ``name`` counts, given the values of the axes before it."""
    if name in IMAGE_FIELDS and not needs_images({**space.fixed, **assignment}):
        return False
    return all(parent in assignment and assignment[parent] in v for parent, v in space.conditions[name].items())


def walking_order(space: SearchSpace) -> list[str]:
    """Return the axes in the file's order, but each after the ones that decide whether it counts."""
    left, order = list(space.axes), list[str]()
    while left:
        ready = next(name for name in left if not _deciding(space, name) & set(left))
        left.remove(ready)
        order.append(ready)
    return order


def _deciding(space: SearchSpace, name: str) -> set[str]:
    images = {"decomposition", "bn_recalibrate"} if name in IMAGE_FIELDS else set()
    return {*space.conditions[name], *(images & set(space.axes))}


def assignments(space: SearchSpace, names: Sequence[str], begun: Assignment | None = None) -> Iterator[Assignment]:
    """Enumerate the assignments of the axes ``names`` (in walking order), the last one changing fastest."""
    begun = begun or {}
    if not names:
        yield dict(begun)
        return
    name, rest = names[0], names[1:]
    if not counts(space, name, begun):
        yield from assignments(space, rest, begun)
        return
    axis = space.axes[name]
    if axis.count is None:
        raise UsageError(
            f"{space.name}: axes.{name}: {axis.describe()} is continuous, so it has no grid; "
            "give it a step or values, or search with random, tpe or nsga2"
        )
    for index in range(axis.count):
        yield from assignments(space, rest, {**begun, name: axis.at(index)})


def size(space: SearchSpace) -> int | None:
    """Count the assignments; values of an axis that decide about others alike are counted as one; None: continuous."""
    order = walking_order(space)
    deciding = set[str]().union(*(_deciding(space, name) for name in order))
    total = 0
    for assignment, times in _classes(space, [name for name in order if name in deciding], {}):
        free = [space.axes[n].count for n in order if n not in deciding and counts(space, n, assignment)]
        known = [count for count in free if count is not None]
        if len(known) < len(free):
            return None
        total += times * prod(known)
    return total


def _classes(space: SearchSpace, names: Sequence[str], begun: Assignment) -> Iterator[tuple[Assignment, int]]:
    """Assignments of the axes ``names``, each with how many there are that differ from it in no condition."""
    if not names:
        yield begun, 1
        return
    name, rest = names[0], names[1:]
    if not counts(space, name, begun):
        yield from _classes(space, rest, begun)
        return
    for value, times in _kinds(space, name):
        for assignment, others in _classes(space, rest, {**begun, name: value}):
            yield assignment, times * others


def _kinds(space: SearchSpace, name: str) -> Iterator[tuple[Value, int]]:
    """Values of an axis that decide about others differently, each with how many there are of its kind."""
    axis = space.axes[name]
    conditions = [condition[name] for condition in space.conditions.values() if name in condition]
    named = axis.values if isinstance(axis, Choices) else {value for values in conditions for value in values}
    kinds: dict[object, list[Value]] = {}
    for value in named:
        itself = value if name in ("decomposition", "bn_recalibrate") else None  # which images depend on
        kinds.setdefault((itself, *(value in values for values in conditions)), []).append(value)
    yield from ((values[0], len(values)) for values in kinds.values())
    left = (axis.count or 0) - len(named)
    if left > 0:
        yield next(value for value in map(axis.at, range(len(named) + 1)) if value not in named), left


def draw(space: SearchSpace, rng: random.Random) -> Assignment:
    """Draw one assignment, axis by axis in walking order."""
    drawn: Assignment = {}
    for name in space.order:
        if counts(space, name, drawn):
            drawn[name] = space.axes[name].sample(rng)
    return drawn


def distinct_draws(space: SearchSpace, seed: int) -> Iterator[Assignment]:
    """Draw without repetition until a finite space is exhausted; a seed always gives the same sequence."""
    rng = random.Random(seed)  # noqa: S311  reproducible draws, no secret
    seen: set[frozenset[tuple[str, Value]]] = set()
    misses = 0
    while misses < PATIENCE or space.size() is None:
        assignment = draw(space, rng)
        identity = frozenset(assignment.items())
        misses = misses + 1 if identity in seen else 0
        if not misses:
            seen.add(identity)
            yield assignment
    rest = (a for a in assignments(space, space.order) if frozenset(a.items()) not in seen)
    if (space.size() or 0) > MOST_TRIALS:  # too many to be mixed
        yield from rest
        return
    mixed = list(rest)
    rng.shuffle(mixed)
    yield from mixed


def suggest(space: SearchSpace, trial: SuggestingTrial) -> Assignment:
    """Let ``trial`` pick an assignment, asking only for axes that count."""
    picked: Assignment = {}
    for name in space.order:
        if counts(space, name, picked):
            picked[name] = space.axes[name].suggest(name, trial)
    return picked


def assignment_of(space: SearchSpace, config: TrialConfig) -> Assignment | None:
    """Undo `SearchSpace.config`: the assignment that gives ``config``; None where the space does not hold it."""
    found: Assignment = {}
    for name in space.order:
        if counts(space, name, found):
            value = value_in(config, name)
            if value is None or value not in space.axes[name]:
                return None
            found[name] = value
    return found if space.config(found).key == config.key else None


def value_in(config: TrialConfig, name: str) -> Value | None:
    """What ``config`` has under the name of an axis; None where it has nothing."""
    if name.startswith(PER_SITE):
        return config.ratios.get(name.removeprefix(PER_SITE))
    if is_option(name):
        return config.options.get(name)
    value: Value | None = getattr(config, name)
    return value
