"""Which configurations a sweep tries, and in which order.

Two planners share one manner (`Planner`): a fixed list (grid, random) and Optuna's TPE or NSGA-II. Both hand out a
configuration at most once, by its key, and skip those that are known already, which is all that a resumed sweep needs.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Protocol

from core.config import TrialConfig, TrialRecord
from core.race import Rival, add
from search_spaces import SearchDefaults, SearchSpace
from sweep.storage.reader import slim

LAG = 24
POPULATION = 24
STARTUP = 16
REPEATS = 20
TAKEN_FROM = "taken_from"
"""Key in a record's provenance: the sweep that it was copied from, for a warm start."""


class Planner(Protocol):
    """Hands out configurations and hears what came of them."""

    total: int
    window: int | None
    """How many configurations may be under way at once; None: any number."""
    rivals: tuple[Rival, ...]
    """The front that the next configuration is raced against."""

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


class OptunaPlanner:
    """TPE or NSGA-II on the space's objectives, by default accuracy up and fraction of parameters down.

    Reproducible with any number of workers up to ``lag``: configuration n is drawn when the sampler knows exactly the
    results of the first n - ``lag``, in the order in which they were drawn, however fast or slow the workers are. A
    resumed search therefore draws the same sequence again, and gets its known results from ``known``. What
    configuration n is raced against is the front of the same n - ``lag`` results.

    A sampler repeats itself in a small space. A repeated configuration is not run again: its known result is told,
    and after `REPEATS` of them in a row a random new one is taken instead. So the search always ends after
    `SearchSpace.planned` different configurations.

    Args:
        space: what may vary, and its search.
        seed: of the sampler.
        known: results of this search so far.
        lag: see above.
        warm: results of earlier searches, told before the first draw; they are not among the `planned` ones.
        hints: drawn first.

    # NOTE: ray.tune's own OptunaSearch is not used: it hands out one configuration per Tune trial (no batches), tells
    # results in order of arrival (not reproducible with several workers), and warns about non-finite metrics instead
    # of leaving them out.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        known: Iterable[TrialRecord] = (),
        lag: int = LAG,
        warm: Sequence[TrialRecord] = (),
        hints: Sequence[TrialConfig] = (),
    ) -> None:
        self._space, self._lag = space, lag
        self.window: int | None = lag
        self._study = make_study(space.search, seed)
        self.total = total(space, len(warm))
        self.rivals: tuple[Rival, ...] = ()
        self._results = {record.key: record for record in known} | {record.key: record for record in warm}
        self._drawn: set[str] = set()
        self._repeats = 0
        self._untold: deque[tuple[Any, str]] = deque()
        self._others = iter(space.random(self.total, seed))
        for config in [record.config for record in warm] + list(hints):
            assignment = space.assignment(config)
            assert assignment is not None, "it was checked that the space holds it"
            self._study.enqueue_trial(space.labels(assignment))
        for record in warm:
            self._draw()
            self._drawn.add(record.key)
            self._tell_oldest()

    def ask(self) -> TrialConfig | None:
        """The sampler's next new configuration; None while it waits for results."""
        while not self.exhausted:
            if len(self._untold) >= self._lag and not self._tell_oldest():
                return None
            config = self._draw() if self._repeats < REPEATS else self._draw_other()
            self._repeats = self._repeats + 1 if config.key in self._drawn else 0
            new = not self._repeats and config.key not in self._results
            self._drawn.add(config.key)
            if new:
                return config
        return None

    def tell(self, record: TrialRecord) -> None:
        """Keep the result until it is its turn."""
        self._results[record.key] = slim(record)

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
        self.rivals = add(self.rivals, record)
        values = [objective(record, name) for name in self._space.search.objectives]
        if None in values:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, values)
        return True


def objective(record: TrialRecord, name: str) -> float | None:
    """What an optimiser hears of a record: its metric, or the bound at which racing stopped the trial."""
    return record.metrics.get(name, record.metrics.get(f"{name}_upper"))


def total(space: SearchSpace, warm: int) -> int:
    """How many different configurations a search has in the end, ``warm`` of them from earlier sweeps."""
    wanted, size = space.planned() + warm, space.size()
    return wanted if size is None else min(wanted, size)


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


def make_planner(
    space: SearchSpace,
    seed: int,
    known: Sequence[TrialRecord] = (),
    lag: int = LAG,
    hints: Sequence[TrialConfig] = (),
    race: bool = False,
) -> Planner:
    """The planner for the search that ``space`` asks for.

    Args:
        space: what may vary, and how it is searched.
        seed: of every random draw.
        known: records of this sweep so far, among them those it took over from an earlier one (see `TAKEN_FROM`);
            their configurations are not handed out again.
        lag: of an optimiser, see `OptunaPlanner`.
        hints: configurations of the space to try first.
        race: the trials race; a list is then taken in random order, so that strong rivals of every size come early.
    """
    warm = [record for record in known if record.provenance.get(TAKEN_FROM)]
    if space.search.algorithm in ("tpe", "nsga2"):
        return OptunaPlanner(space, seed, known, lag, warm, hints)
    taken = {record.key for record in warm}
    drawn = space.grid() if space.search.algorithm == "grid" else space.random(total(space, len(warm)), seed)
    new = (config for config in chain(hints, drawn) if config.key not in taken)
    chosen = list(islice(_each_once(new), space.planned()))
    if race:
        random.Random(seed).shuffle(chosen)  # noqa: S311  reproducible, no secret
    return ListPlanner(chosen, known)


def _each_once(configs: Iterable[TrialConfig]) -> Iterator[TrialConfig]:
    """One at a time, so that of a fine grid no more is made than is asked for."""
    seen: set[str] = set()
    for config in configs:
        if config.key not in seen:
            seen.add(config.key)
            yield config
