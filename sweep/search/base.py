"""What a search algorithm is (`Planner`), what it is made from (`Plan`), and the registry of them.

An algorithm is a function that makes a planner of a plan, registered in a file of its own. Every planner hands out a
configuration at most once, by its key, and skips those that are known already, which is all that a resumed sweep needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from core.config import TrialConfig
from core.errors import UsageError
from core.race import Rival
from core.records import TrialRecord
from search_spaces import SearchSpace
from search_spaces.algorithms import ALGORITHMS
from search_spaces.sampling import Assignment

LAG = 24
TAKEN_FROM = "taken_from"
"""Key in a record's provenance: the sweep that it was copied from, for a warm start."""


class Planner(Protocol):
    """Hands out configurations and hears what came of them.

    Attributes:
        total: how many configurations there are in the end, known ones included.
        window: how many configurations may be under way at once; None: any number.
        rivals: the front that the next configuration is raced against.
    """

    total: int
    window: int | None
    rivals: tuple[Rival, ...]

    def ask(self) -> TrialConfig | None:
        """The next configuration; None: nothing now (see `exhausted`)."""

    def tell(self, record: TrialRecord) -> None:
        """Hear the outcome of a configuration that was asked for."""

    @property
    def exhausted(self) -> bool:
        """True when `ask` will never again return a configuration."""


@dataclass(frozen=True)
class Plan:
    """What a search algorithm is given.

    Attributes:
        space: what may vary, and how it is searched.
        seed: of every random draw.
        known: records of this sweep so far, among them those it took over from an earlier one (see `TAKEN_FROM`);
            their configurations are not handed out again.
        lag: how many configurations an optimiser draws ahead of the results it knows.
        hints: configurations of the space to try first.
        race: the trials race; a list is then taken in random order, so that strong rivals of every size come early.
    """

    space: SearchSpace
    seed: int
    known: Sequence[TrialRecord] = ()
    lag: int = LAG
    hints: Sequence[TrialConfig] = ()
    race: bool = False

    @cached_property
    def taken(self) -> dict[str, Assignment]:
        """What was taken over from earlier sweeps and lies in the space: key -> its place there."""
        places = {r.key: placed(self.space, r) for r in self.known if r.provenance.get(TAKEN_FROM)}
        return {key: place for key, place in places.items() if place is not None}

    @property
    def total(self) -> int:
        """How many different configurations the search has in the end, those taken over included."""
        wanted, size = self.space.planned() + len(self.taken), self.space.size()
        return wanted if size is None else min(wanted, size)


def placed(space: SearchSpace, record: TrialRecord) -> Assignment | None:
    """Where ``record`` lies in ``space``; None where it does not, or names something that is not known (any more)."""
    try:
        return space.assignment(TrialConfig.parse(record.config))
    except UsageError:
        return None


MakePlanner = Callable[[Plan], Planner]


def register(name: str) -> Callable[[MakePlanner], MakePlanner]:
    """File a search algorithm under ``name``."""
    return ALGORITHMS.register(name)


def make_planner(plan: Plan) -> Planner:
    """The planner for the search that the plan's space asks for.

    Raises:
        UnknownNameError: there is no such algorithm.
    """
    planner: Planner = ALGORITHMS.get(plan.space.search.algorithm)(plan)
    return planner
