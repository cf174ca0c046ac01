"""What a new sweep learns from earlier ones.

Results on the same original network and the same split of its data are taken over: nothing is evaluated twice, and the
optimiser knows them from the start. Of any other sweep, the configurations on its front are tried first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.config import TrialConfig
from core.pareto import pareto_front
from core.records import EvalSplit, TrialRecord
from search_spaces import SearchSpace
from sweep.search.base import TAKEN_FROM, placed
from sweep.storage.reader import StoredSweep, read_sweep


@dataclass(frozen=True)
class WarmStart:
    """Earlier sweeps to learn from.

    Attributes:
        space: decides which of their configurations are of use.
        sweeps: in the order in which they were named.
    """

    space: SearchSpace
    sweeps: tuple[StoredSweep, ...]

    @classmethod
    def read(cls, space: SearchSpace, results: Path, names: Sequence[str]) -> WarmStart:
        """Read the sweeps called ``names``.

        Raises:
            UnknownNameError: there is no such sweep.
        """
        return cls(space, tuple(read_sweep(results, name, whole=True) for name in names))

    @property
    def names(self) -> list[str]:
        """Of the sweeps."""
        return [sweep.info.name for sweep in self.sweeps]

    def records_for(self, baseline_key: str, split: EvalSplit) -> list[TrialRecord]:
        """Finished records of the same original network, split and evaluator in the space, each configuration once."""
        found: dict[str, TrialRecord] = {}
        for sweep in self.sweeps:
            for record in filter(self._usable, sweep.records):
                if self._alike(sweep, baseline_key) and record.split == split:
                    key = TrialConfig.parse(record.config).key
                    mark = {"key": key, "provenance": {**record.provenance, TAKEN_FROM: sweep.info.name}}
                    found.setdefault(key, record.model_copy(update=mark))
        return list(found.values())

    def hints_for(self, baseline_key: str, split: EvalSplit) -> list[TrialConfig]:
        """Configurations of the space on the fronts of other networks or splits, each once."""
        found: dict[str, TrialConfig] = {}
        for sweep in self.sweeps:
            other = not self._alike(sweep, baseline_key)
            others = [r for r in sweep.records if other or r.split != split]
            for record in pareto_front(others, y=sweep.scored.score.name):
                if self._usable(record):
                    config = TrialConfig.parse(record.config)
                    found.setdefault(config.key, config)
        return list(found.values())

    def _alike(self, sweep: StoredSweep, baseline_key: str) -> bool:
        """Whether its results are of the same original network, scored in the same way."""
        same = sweep.info.request.evaluator == self.space.evaluation.evaluator and sweep.scored == self.space.scored
        same = same and sweep.info.request.autocast == (self.space.evaluation.autocast or "")
        return same and sweep.info.state.baseline_key == baseline_key

    def _usable(self, record: TrialRecord) -> bool:
        return record.status == "finished" and placed(self.space, record) is not None
