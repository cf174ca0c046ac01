"""Which configurations a sweep tries, and in which order.

Two planners share one manner (`Planner`): a fixed list (grid, random) and Optuna's TPE or NSGA-II. Both hand out a
configuration at most once, by its key, and skip those that are known already, which is all that a resumed sweep needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from core.config import TrialConfig, TrialRecord
from search_spaces import SearchDefaults, SearchSpace

LAG = 24
POPULATION = 24
STARTUP = 16
REPEATS = 20


class Planner(Protocol):
    """Hands out configurations and hears what came of them."""

    total: int

    def ask(self) -> TrialConfig | None:
        """The next configuration; None: nothing now (see `exhausted`)."""

    def tell(self, record: TrialRecord) -> None:
        """Hear the outcome of a configuration that was asked for."""

    @property
    def exhausted(self) -> bool:
        """True when `ask` will never again return a configuration."""


class ListPlanner:
    """A list of configurations, each key once, those in ``known`` left out."""

    def __init__(self, configs: Iterable[TrialConfig], known: Iterable[TrialRecord] = ()) -> None:
        done = {record.key for record in known}
        unique = {config.key: config for config in configs}
        self.total = len(unique)
        self._waiting = deque(config for key, config in unique.items() if key not in done)

    def ask(self) -> TrialConfig | None:
        """The next configuration of the list."""
        return self._waiting.popleft() if self._waiting else None

    def tell(self, record: TrialRecord) -> None:
        """A list does not learn."""

    @property
    def exhausted(self) -> bool:
        """True when the list is used up."""
        return not self._waiting


class OptunaPlanner:
    """TPE or NSGA-II on the space's objectives, by default accuracy up and fraction of parameters down.

    Reproducible with any number of workers up to ``lag``: configuration n is drawn when the sampler knows exactly the
    results of the first n - ``lag``, in the order in which they were drawn, however fast or slow the workers are. A
    resumed search therefore draws the same sequence again, and gets its known results from ``known``.

    A sampler repeats itself in a small space. A repeated configuration is not run again: its known result is told,
    and after `REPEATS` of them in a row a random new one is taken instead. So the search always ends after
    `SearchSpace.planned` different configurations.

    # NOTE: ray.tune's own OptunaSearch is not used: it hands out one configuration per Tune trial (no batches), tells
    # results in order of arrival (not reproducible with several workers), and warns about non-finite metrics instead
    # of leaving them out.
    """

    def __init__(self, space: SearchSpace, seed: int, known: Iterable[TrialRecord] = (), lag: int = LAG) -> None:
        self._space, self._lag = space, lag
        self._study = make_study(space.search, seed)
        self.total = space.planned()
        self._results = {record.key: record for record in known}
        self._drawn: set[str] = set()
        self._untold: deque[tuple[Any, str]] = deque()
        self._others = iter(space.random(self.total, seed))

    def ask(self) -> TrialConfig | None:
        """The sampler's next new configuration; None while it waits for results."""
        repeats = 0
        while not self.exhausted:
            if len(self._untold) >= self._lag and not self._tell_oldest():
                return None
            config = self._draw() if repeats < REPEATS else self._draw_other()
            repeats = repeats + 1 if config.key in self._drawn else 0
            new = not repeats and config.key not in self._results
            self._drawn.add(config.key)
            if new:
                return config
        return None

    def tell(self, record: TrialRecord) -> None:
        """Keep the result until it is its turn."""
        self._results[record.key] = record

    @property
    def exhausted(self) -> bool:
        """True when enough different configurations were drawn."""
        return len(self._drawn) >= self.total

    def _draw(self) -> TrialConfig:
        trial = self._study.ask()
        config = self._space.suggest(trial)
        self._untold.append((trial, config.key))
        return config

    def _draw_other(self) -> TrialConfig:
        """A random configuration that was not drawn yet; there is one, since fewer than `total` were."""
        return next(config for config in self._others if config.key not in self._drawn)

    def _tell_oldest(self) -> bool:
        from optuna.trial import TrialState

        trial, key = self._untold[0]
        record = self._results.get(key)
        if record is None:
            return False
        self._untold.popleft()
        if record.status == "finished":
            self._study.tell(trial, [record.metrics[name] for name in self._space.search.objectives])
        else:
            self._study.tell(trial, state=TrialState.FAIL)
        return True


def make_study(search: SearchDefaults, seed: int) -> Any:
    """An Optuna study in memory with the sampler and objectives of ``search``."""
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: Any = (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        if search.algorithm == "tpe"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    )
    directions = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return optuna.create_study(directions=[directions[way] for way in search.objectives.values()], sampler=sampler)


def make_planner(space: SearchSpace, seed: int, known: Iterable[TrialRecord] = (), workers: int = 1) -> Planner:
    """The planner for the search that ``space`` asks for.

    Args:
        space: what may vary, and how it is searched.
        seed: of every random draw.
        known: records of earlier runs; their configurations are not handed out again.
        workers: how many configurations may be under way at once.
    """
    if space.search.algorithm == "grid":
        return ListPlanner(islice(space.grid(), space.planned()), known)
    if space.search.algorithm == "random":
        return ListPlanner(space.random(space.planned(), seed), known)
    return OptunaPlanner(space, seed, known, lag=max(LAG, 2 * workers))
