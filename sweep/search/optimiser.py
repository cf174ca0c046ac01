"""Searches that learn: an Optuna sampler, asked and told in an order that does not depend on the workers' speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from core.config import TrialConfig
from core.metrics import Direction
from core.race import Rival, add
from core.records import TrialRecord
from sweep.search.base import Plan, placed
from sweep.storage.reader import slim

REPEATS = 20


class OptunaPlanner:
    """A sampler on the space's objectives, by default accuracy up and fraction of parameters down.

    Reproducible with any number of workers up to the plan's ``lag``: configuration n is drawn when the sampler knows
    exactly the results of the first n - ``lag``, in the order in which they were drawn, however fast or slow the
    workers are. A resumed search therefore draws the same sequence again, and gets its known results from the plan.
    What configuration n is raced against is the front of the same n - ``lag`` results. Results that were taken over
    from earlier searches are told before the first draw; the hints are drawn first.

    A sampler repeats itself in a small space. A repeated configuration is not run again: its known result is told,
    and after `REPEATS` of them in a row a random new one is taken instead. So the search always ends after
    `Plan.total` different configurations.

    Args:
        plan: what is searched.
        sampler: of Optuna.

    # NOTE: ray.tune's own OptunaSearch is not used: it hands out one configuration per Tune trial (no batches), tells
    # results in order of arrival (not reproducible with several workers), and warns about non-finite metrics instead
    # of leaving them out.
    """

    def __init__(self, plan: Plan, sampler: Any) -> None:
        self._space, self._lag = plan.space, plan.lag
        self.window: int | None = plan.lag
        self._study = make_study(plan.space.objectives, sampler)
        self._wanted = plan.total
        elsewhere = sum(r.key not in plan.taken and placed(plan.space, r) is None for r in plan.known)
        self.total = self._wanted + elsewhere
        self.rivals: tuple[Rival, ...] = ()
        self._results = {record.key: record for record in plan.known}
        self._drawn: set[str] = set()
        self._repeats = 0
        self._untold: deque[tuple[Any, str]] = deque()
        self._others = iter(plan.space.random(self._wanted, plan.seed))
        hinted = [plan.space.assignment(config) for config in plan.hints]
        for place in (*plan.taken.values(), *hinted):
            assert place is not None, "it was checked that the space holds it"
            self._study.enqueue_trial(plan.space.labels(place))
        for key in plan.taken:
            self._draw()
            self._drawn.add(key)
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
        return len(self._drawn) >= self._wanted

    def _draw(self) -> TrialConfig:
        trial = self._study.ask()
        _ = trial.relative_params  # Optuna 5 asks its sampler late: what is enqueued would belong to no generation
        config = self._space.suggest(trial)
        self._untold.append((trial, config.key))
        return config

    def _draw_other(self) -> TrialConfig:
        """A random configuration that was not drawn yet; there is one, since fewer than all were."""
        return next(config for config in self._others if config.key not in self._drawn)

    def _tell_oldest(self) -> bool:
        from optuna.trial import TrialState

        trial, key = self._untold[0]
        record = self._results.get(key)
        if record is None:
            return False
        self._untold.popleft()
        self.rivals = add(self.rivals, record)
        values = [objective(record, name) for name in self._space.objectives]
        if None in values:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, values)
        return True


def objective(record: TrialRecord, name: str) -> float | None:
    """What an optimiser hears of a record: its metric, or the bound at which racing stopped the trial."""
    return record.metrics.get(name, record.metrics.get(f"{name}_upper"))


def make_study(objectives: Mapping[str, Direction], sampler: Any) -> Any:
    """An Optuna study in memory."""
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return optuna.create_study(directions=[directions[way] for way in objectives.values()], sampler=sampler)
