"""Sweeps from Python, for scripts and notebooks: the command line's `sweep run`, and what came of it as objects."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.plain import plain_torch
from core.records import TrialRecord
from sweep.quiet import silence
from sweep.storage.address import place
from sweep.storage.layout import MODELS, REPORT
from sweep.storage.reader import StoredSweep, read_sweep

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

RESULTS = Path("results")
CONFIGURATION = ("ratio", "criterion", "decomposition", "allocation")
"""Fields of the configuration that a table has."""


@dataclass(frozen=True)
class SweepResult:
    """A sweep as it is on disk; `run` gives one back, and `load` reads that of an earlier sweep.

    Attributes:
        name: of the sweep.
        folder: where everything of it lies.
        status: ``finished``, ``stopped`` by a limit, ``interrupted``, ``failed`` or still ``running``.
        reason: why it ended early; empty where it did not.
        original: metrics of the original network (percent, nats, counts, bytes, ms), see `core.metrics`.
        front: the trials that no other beats in accuracy and parameters, the most accurate first.
        trials: every trial that has a record.
    """

    name: str
    folder: Path
    status: str
    reason: str
    original: Mapping[str, float] = field(repr=False)
    front: tuple[TrialRecord, ...] = field(repr=False)
    trials: tuple[TrialRecord, ...] = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every trial as a row: key, status, whether and where it is on the front, metrics, configuration."""
        return as_table(self.trials, self.front)

    @property
    def front_table(self) -> pd.DataFrame:
        """The front alone, the most accurate first, with its ``rank``."""
        return self.table[self.table["rank"] > 0].sort_values("rank").reset_index(drop=True)

    @property
    def report(self) -> Path:
        """The page about it, one HTML file."""
        return self.folder / REPORT

    def path(self, trial: TrialRecord | str) -> Path:
        """The weights of a network on the front, a safetensors file.

        Raises:
            UsageError: it is not there; the message says how to get it.
        """
        key = trial if isinstance(trial, str) else trial.key
        path = self.folder / MODELS / f"{key}.safetensors"
        if not path.is_file():
            command = f"sweep export {self.name}{place(self.folder.parent)} --trial {key}"
            raise UsageError(f"the network of trial {key} is not in {path.parent}: '{command}' writes it")
        return path

    def model(self, trial: TrialRecord | str) -> nn.Module:
        """A network on the front, in eval mode on the CPU.

        Raises:
            UsageError: its file is not there.
            CheckpointError: the file is damaged.
        """
        from core.export import load
        from core.models import load_model
        from search_spaces import parse_space
        from sweep.storage.info import resampled

        path, sweep = self.path(trial), read_sweep(self.folder.parent, self.name)
        try:
            return load(path)
        except UsageError:  # of the user's own factory
            baseline = parse_space(resampled(sweep.info.request), self.name).baseline
            return load(path, factory=lambda: load_model(baseline.model))

    def _repr_html_(self) -> str:
        """The front as a notebook shows it."""
        return str(self.front_table.to_html(index=False))


@plain_torch(exact=False)  # its evaluations are torch's, as those of workers are
def run(
    space: str | Path,
    *,
    samples: int | None = None,
    search: str | None = None,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
    seed: int = 0,
    results: str | Path = RESULTS,
    workers: int | None = None,
    address: str | None = None,
    gpus_per_trial: float = 0.0,
    tracking_uri: str | None = None,
    race: bool = False,
    time_limit: float | None = None,
    plateau: int | None = None,
    trial_timeout: float | None = None,
    warm_start: Sequence[str] = (),
    models: bool = True,
    progress: bool = True,
) -> SweepResult:
    """Run a sweep as ``sweep run`` does, and return what came of it.

    Ctrl-C (a notebook's stop button) ends it in good order; ``sweep resume NAME`` goes on.

    Args:
        space: a name of ``sweep spaces``, or the path of a TOML file.
        samples: how many configurations; None: the space's own number, of a grid all.
        search: grid, random, tpe or nsga2; None: the space's own.
        changes: of the space, as ``--set`` makes them: ``{"ratio": [0.3, 0.5], "baseline.epochs": 5}``.
        name: of the sweep; None: after the space.
        seed: of the search's random draws.
        results: folder of all sweeps.
        workers: trials at the same time; None: one per CPU.
        address: ``host:port`` of a Ray cluster's head, or ``auto``; None: a private Ray on this machine.
        gpus_per_trial: GPUs, or a fraction of one, per trial.
        tracking_uri: of an MLflow server; None: a SQLite file in the results folder.
        race: stop trials that are certainly beaten before all images are evaluated.
        time_limit: end after so many seconds.
        plateau: end after so many trials that brought no better front.
        trial_timeout: a trial that takes longer, in seconds, has failed.
        warm_start: names of earlier sweeps to learn from.
        models: write the networks on the front when it ends.
        progress: tell on stderr how far it is: a bar on a terminal, lines elsewhere.

    Raises:
        NeuronMergingError: it cannot start, or nothing can be stored; the message is one sentence with the remedy.
    """
    silence(private=address is None)
    from search_spaces import load_space
    from sweep.reporting.progress import PlainReporter, make_reporter
    from sweep.runner import RunRequest, run_sweep
    from sweep.storage.info import ClusterRequest, Limits

    wanted = {key: as_toml(value) for key, value in (changes or {}).items()}
    wanted |= {} if search is None else {"search.algorithm": search}
    wanted |= {} if samples is None else {"search.samples": str(samples)}
    request = RunRequest(
        space=load_space(str(space), wanted),
        results=Path(results),
        name=name,
        seed=seed,
        cluster=ClusterRequest(workers, gpus_per_trial, address),
        tracking_uri=tracking_uri,
        race=race,
        limits=Limits(seconds=time_limit, plateau=plateau, trial_seconds=trial_timeout),
        warm_start=warm_start,
        models=models,
    )
    with make_reporter(sys.stderr) if progress else PlainReporter(io.StringIO()) as reporter:
        finished = run_sweep(request, reporter)
    return as_result(finished.outcome.sweep, finished.reason)


def load(name: str, results: str | Path = RESULTS) -> SweepResult:
    """Read a sweep that was run before, or is running.

    Raises:
        UsageError: there is none of that name.
    """
    sweep = read_sweep(Path(results), name)
    return as_result(sweep, sweep.info.state.message)


def as_result(sweep: StoredSweep, reason: str) -> SweepResult:
    """A sweep that was read, as an object for scripts."""
    from sweep.export.choose import front

    state = sweep.info.state
    chosen, every = tuple(front(sweep)), tuple(sweep.records)
    return SweepResult(sweep.info.name, sweep.folder, state.status, reason, dict(state.original), chosen, every)


def as_toml(value: Any) -> str:
    """A value of ``changes`` as ``--set`` takes it.

    Raises:
        UsageError: it is nothing that TOML has.
    """
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    raise UsageError(f"{value!r} cannot be a value of a search space; give text, numbers, true or false, or lists")


def as_table(trials: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> pd.DataFrame:
    """Trials as a table: key, status, rank (from 1 on the front, else 0), metrics, configuration and options."""
    import pandas as pd

    ranks = {record.key: place for place, record in enumerate(front, 1)}
    rows = [
        {
            "key": record.key,
            "status": record.status,
            "rank": ranks.get(record.key, 0),
            **record.metrics,
            **{name: record.config.get(name) for name in CONFIGURATION},
            **record.options,
            "seconds": record.seconds,
            "reason": record.reason,
        }
        for record in trials
    ]
    return pd.DataFrame(rows, columns=None if rows else ["key", "status", "rank"])
