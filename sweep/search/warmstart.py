"""What a new sweep learns from earlier ones.

Results on the same original network are taken over: nothing is evaluated twice, and the optimiser knows them from the
start. Of a sweep on another network, the configurations on its front are tried first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.config import TrialConfig, TrialRecord
from core.pareto import pareto_front
from search_spaces import SearchSpace
from sweep.search.planner import TAKEN_FROM
from sweep.storage.reader import StoredSweep, read_sweep


@dataclass(frozen=True)
class WarmStart:
    """Earlier sweeps, and the space that decides which of their configurations are of use."""

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

    def records_for(self, baseline_key: str) -> list[TrialRecord]:
        """Finished records of the same original network that lie in the space, each configuration once."""
        found: dict[str, TrialRecord] = {}
        for sweep in self.sweeps:
            if sweep.info.baseline_key == baseline_key:
                source = {TAKEN_FROM: sweep.info.name}
                for record in filter(self._usable, sweep.records):
                    mark = {"provenance": {**record.provenance, **source}}
                    found.setdefault(record.key, record.model_copy(update=mark))
        return list(found.values())

    def hints_for(self, baseline_key: str) -> list[TrialConfig]:
        """Configurations of the space on the fronts of other networks, each once."""
        found: dict[str, TrialConfig] = {}
        for sweep in self.sweeps:
            if sweep.info.baseline_key != baseline_key:
                for record in pareto_front(sweep.records):
                    if self._usable(record):
                        found.setdefault(record.key, record.config)
        return list(found.values())

    def _usable(self, record: TrialRecord) -> bool:
        return record.status == "finished" and self.space.assignment(record.config) is not None
