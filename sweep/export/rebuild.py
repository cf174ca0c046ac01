"""A network of a sweep made once more from its record, and looked at: it has to reach what the record says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.baselines import Baseline, cache_path
from core.config import TrialConfig
from core.errors import NeuronMergingError, UsageError
from core.measure import latency_ms
from core.models import is_pretrained
from core.records import TrialRecord
from core.shelf import FolderShelf
from core.trial import Made, make_trial
from core.workbench import Workbench
from search_spaces import SearchSpace, parse_space
from sweep.backend.workbench import load_baseline, make_bench, one_thread
from sweep.reporting.progress import Reporter
from sweep.storage.layout import BASELINES, STATISTICS
from sweep.storage.reader import StoredSweep

EXACT = ("params", "macs", "bytes")
"""Sizes that have to be the record's."""


class ExportError(NeuronMergingError):
    """A network cannot be had, or is not what its record says."""


@dataclass(frozen=True)
class Rebuilt:
    """A network that reaches what its record says.

    Attributes:
        record: of the trial.
        made: the network, and how it was made.
        latency: of one image on this machine and one thread, ms: the original's, and the network's.
        accuracy: measured again, percent.
    """

    record: TrialRecord
    made: Made
    latency: tuple[float, float]
    accuracy: float


class Rebuilder:
    """Makes networks of one sweep.

    Args:
        results: folder of all sweeps.
        sweep: as read from there.
        reporter: shows how far it is.
    """

    def __init__(self, results: Path, sweep: StoredSweep, reporter: Reporter) -> None:
        self._results, self._sweep, self._reporter = results, sweep, reporter

    @cached_property
    def space(self) -> SearchSpace:
        """What the sweep varied, and its original network."""
        request = self._sweep.info.request
        return parse_space(dict(request.resolved), request.name)

    @cached_property
    def baseline(self) -> Baseline:
        """The sweep's original network and its data.

        Raises:
            ExportError: it is gone, or another one than the sweep compressed.
        """
        config, name = self.space.baseline, self._sweep.info.name
        path = cache_path(config, config.key, self._results / BASELINES)
        if config.checkpoint is None and not is_pretrained(config.model) and not path.is_file():
            raise ExportError(f"the original network of {name} is gone: {path} is not there; bring it back")
        found = load_baseline(config, self._results, self._reporter)
        if self._sweep.info.state.baseline_key not in ("", found.key) or found.origin == "training":
            raise ExportError(
                f"the original network of {name} has changed since; bring the old checkpoint or data back"
            )
        return found

    @cached_property
    def bench(self) -> Workbench:
        """What the sweep's trials ran on."""
        bench = make_bench(self.baseline, self.space.evaluation.split, sources=self.space.sources())
        bench.shelf = FolderShelf(self._sweep.folder / STATISTICS)
        return bench

    def rebuild(self, record: TrialRecord) -> Rebuilt:
        """Make the network of ``record`` once more, and compare it.

        Its sizes must be the record's, and its accuracy to one image: other processors round otherwise.

        Raises:
            ExportError: it is another one.
            UsageError: the record names something that is not known (any more), or was measured on another split.
        """
        if record.split != self.bench.split:
            raise UsageError(f"trial {record.key} was evaluated on the {record.split} split, the sweep is on another")
        config = TrialConfig.parse(record.config, where=f"trial {record.key}: ")
        with one_thread():
            made = make_trial(config, self.bench)
            accuracy, sizes = self.bench.evaluate(made.model).accuracy, self.bench.sizes(made.model)
            latency = (latency_ms(self.bench.model, self.bench.example), latency_ms(made.model, self.bench.example))
        wrong = [name for name in EXACT if name in record.metrics and sizes[name] != record.metrics[name]]
        away = abs(accuracy - record.metrics["accuracy"])
        if wrong or away > 100 / len(self.bench.labels) + 1e-6:
            found, wanted = f"{accuracy:.2f} %", f"{record.metrics['accuracy']:.2f} %"
            if wrong:
                found += f", {sizes[wrong[0]]:,.0f} {wrong[0]}"
                wanted += f", {record.metrics[wrong[0]]:,.0f} {wrong[0]}"
            raise ExportError(
                f"trial {record.key} made once more gives {found}, and its record says {wanted}: the weights, the"
                " data or the release have changed; nothing is written"
            )
        return Rebuilt(record, made, latency, accuracy)
