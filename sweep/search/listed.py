"""Searches that know from the start what they try: a list of configurations."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from core.config import TrialConfig
from core.race import Rival, add
from core.records import TrialRecord
from sweep.search.base import Plan


class ListPlanner:
    """A list of configurations, each key once, those in ``known`` left out."""

    def __init__(self, configs: Iterable[TrialConfig], known: Iterable[TrialRecord] = ()) -> None:
        done = {record.key: record for record in known}
        unique = {config.key: config for config in configs}
        self.total = len(unique.keys() | done.keys())
        self.window: int | None = None
        self.rivals: tuple[Rival, ...] = ()
        self._waiting = deque(config for key, config in unique.items() if key not in done)
        for record in done.values():
            self.tell(record)

    def ask(self) -> TrialConfig | None:
        """The next configuration of the list."""
        return self._waiting.popleft() if self._waiting else None

    def tell(self, record: TrialRecord) -> None:
        """A list does not learn, but its trials race."""
        self.rivals = add(self.rivals, record)

    @property
    def exhausted(self) -> bool:
        """True when the list is used up."""
        return not self._waiting


def listed(plan: Plan, drawn: Iterable[TrialConfig]) -> ListPlanner:
    """A list of as many of the hints and of ``drawn`` as the plan's space wants, without what was taken over."""
    new = (config for config in chain(plan.hints, drawn) if config.key not in plan.taken)
    chosen = list(islice(_each_once(new), plan.space.planned()))
    if plan.race:
        random.Random(plan.seed).shuffle(chosen)  # noqa: S311  reproducible, no secret
    return ListPlanner(chosen, plan.known)


def _each_once(configs: Iterable[TrialConfig]) -> Iterator[TrialConfig]:
    """One at a time, so that of a fine grid no more is made than is asked for."""
    seen: set[str] = set()
    for config in configs:
        if config.key not in seen:
            seen.add(config.key)
            yield config
