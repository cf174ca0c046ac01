"""Ways through a space: count it, enumerate it, draw from it, or let an optimiser pick.

All of them walk the axes in an order in which an axis comes after those it depends on, and skip an axis whose
condition does not hold. What is picked is an *assignment*, axis -> value; two different assignments are two
different configurations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from core.config import TrialConfig, image_readers, reads_images
from core.errors import UsageError
from search_spaces.axis import Axis, Choices, SuggestingTrial, Value
from search_spaces.conditions import IMAGE_FIELDS, Condition
from search_spaces.document import MOST_TRIALS
from search_spaces.names import PER_SITE, is_option

Assignment = dict[str, Value]

PATIENCE = 1000
"""Draws in a row without a new assignment after which a finite space is enumerated instead."""


@dataclass(frozen=True)
class Axes:
    """What varies in a space, and when.

    Attributes:
        name: how the space is called.
        fixed: name -> the one value it has. Options count where the decomposition has them.
        axes: name -> the values it takes, in the file's order.
        conditions: axis -> the values of other axes under which it counts, transitively complete.
    """

    name: str
    fixed: dict[str, Value]
    axes: dict[str, Axis]
    conditions: dict[str, Condition]

    @cached_property
    def order(self) -> list[str]:
        """The axes, each after those that decide whether it counts."""
        return walking_order(self)

    def size(self) -> int | None:
        """Return the number of grid configurations; None when an axis is continuous."""
        return self._size

    @cached_property
    def _size(self) -> int | None:
        return size(self)


def counts(space: Axes, name: str, assignment: Mapping[str, Value]) -> bool:
    """Whether axis ``name`` counts, given the values of the axes before it."""
    if name in IMAGE_FIELDS and not reads_images({**space.fixed, **assignment}):
        return False
    return all(parent in assignment and assignment[parent] in v for parent, v in space.conditions[name].items())


def walking_order(space: Axes) -> list[str]:
    """Return the axes in the file's order, but each after the ones that decide whether it counts."""
    left, order = list(space.axes), list[str]()
    while left:
        ready = next(name for name in left if not _deciding(space, name) & set(left))
        left.remove(ready)
        order.append(ready)
    return order


def _deciding(space: Axes, name: str) -> set[str]:
    images = image_readers().keys() if name in IMAGE_FIELDS else set()
    return {*space.conditions[name], *(set(images) & set(space.axes))}


def assignments(space: Axes, names: Sequence[str], begun: Assignment | None = None) -> Iterator[Assignment]:
    """Enumerate the assignments of the axes ``names`` (in walking order), the last one changing fastest.

    Raises:
        UsageError: an axis that counts is continuous, so it has no grid.
    """
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


def size(space: Axes) -> int | None:
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


def _classes(space: Axes, names: Sequence[str], begun: Assignment) -> Iterator[tuple[Assignment, int]]:
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


def _kinds(space: Axes, name: str) -> Iterator[tuple[Value, int]]:
    """Values of an axis that decide about others differently, each with how many there are of its kind."""
    axis = space.axes[name]
    conditions = [condition[name] for condition in space.conditions.values() if name in condition]
    named = axis.values if isinstance(axis, Choices) else {value for values in conditions for value in values}
    kinds: dict[object, list[Value]] = {}
    for value in named:
        itself = value if name in image_readers() else None  # which images depend on
        kinds.setdefault((itself, *(value in values for values in conditions)), []).append(value)
    yield from ((values[0], len(values)) for values in kinds.values())
    left = (axis.count or 0) - len(named)
    if left > 0:
        yield next(value for value in map(axis.at, range(len(named) + 1)) if value not in named), left


def draw(space: Axes, rng: random.Random) -> Assignment:
    """Draw one assignment, axis by axis in walking order."""
    drawn: Assignment = {}
    for name in space.order:
        if counts(space, name, drawn):
            drawn[name] = space.axes[name].sample(rng)
    return drawn


def distinct_draws(space: Axes, seed: int) -> Iterator[Assignment]:
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


def suggest(space: Axes, trial: SuggestingTrial) -> Assignment:
    """Let ``trial`` pick an assignment, asking only for axes that count."""
    picked: Assignment = {}
    for name in space.order:
        if counts(space, name, picked):
            picked[name] = space.axes[name].suggest(name, trial)
    return picked


def place_of(space: Axes, config: TrialConfig) -> Assignment | None:
    """The values of the axes that may make up ``config``; None where one of them never has its value."""
    found: Assignment = {}
    for name in space.order:
        if counts(space, name, found):
            value = value_in(config, name)
            if value is None or value not in space.axes[name]:
                return None
            found[name] = value
    return found


def value_in(config: TrialConfig, name: str) -> Value | None:
    """What ``config`` has under the name of an axis; None where it has nothing."""
    if name.startswith(PER_SITE):
        return config.ratios.get(name.removeprefix(PER_SITE))
    if is_option(name):
        return config.options.get(name)
    value: Value | None = getattr(config, name)
    return value
