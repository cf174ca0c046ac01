"""Searches that know from the start what they try: a list of configurations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from core.config import TrialConfig
from core.race import Rival, add
from core.records import TrialRecord
from sweep.search.base import Plan

LISTED = 10_000
"""Longer lists are made piece by piece, while their trials run."""


class ListPlanner:
    """Configurations in their order, each key once, those in ``known`` left out.

    Args:
        configs: made as they are asked for, where ``total`` is given.
        known: records of this sweep so far.
        total: how many there are in the end, known ones included; None: they are counted.
    """

    def __init__(
        self, configs: Iterable[TrialConfig], known: Iterable[TrialRecord] = (), total: int | None = None
    ) -> None:
        done = {record.key: record for record in known}
        if total is None:
            unique = {config.key: config for config in configs}
            configs, total = unique.values(), len(unique.keys() | done.keys())
        self.total = max(total, len(done))
        self.window: int | None = None
        self.rivals: tuple[Rival, ...] = ()
        self._waiting = (config for config in _each_once(configs) if config.key not in done)
        self._next = next(self._waiting, None)
        for record in done.values():
            self.tell(record)

    def ask(self) -> TrialConfig | None:
        """The next configuration of the list."""
        config, self._next = self._next, next(self._waiting, None)
        return config

    def tell(self, record: TrialRecord) -> None:
        """A list does not learn, but its trials race."""
        self.rivals = add(self.rivals, record)

    @property
    def exhausted(self) -> bool:
        """True when the list is used up."""
        return self._next is None


def listed(plan: Plan, drawn: Iterable[TrialConfig]) -> ListPlanner:
    """A list of as many of the hints and of ``drawn`` as the plan's space wants, without what was taken over."""
    new = (config for config in chain(plan.hints, drawn) if config.key not in plan.taken)
    chosen = islice(_each_once(new), plan.space.planned())
    if plan.race:
        mixed = list(chosen)
        random.Random(plan.seed).shuffle(mixed)  # noqa: S311  reproducible, no secret
        return ListPlanner(mixed, plan.known)
    return ListPlanner(chosen, plan.known, plan.total if plan.space.planned() > LISTED else None)


def _each_once(configs: Iterable[TrialConfig]) -> Iterator[TrialConfig]:
    """One at a time, so that of a fine grid no more is made than is asked for."""
    seen: set[str] = set()
    for config in configs:
        if config.key not in seen:
            seen.add(config.key)
            yield config
