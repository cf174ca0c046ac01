"""A sweep's place in MLflow: its experiment, its parent run, and the sink for its child runs. Imports MLflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from sweep.storage.info import SweepInfo
from sweep.storage.locks import hold
from sweep.tracking.sinks import Sink, children_of, dataset_input, make_sink
from sweep.tracking.summary import FRONT, ON_FRONT, RANK, Ending, Front, description, saved_views
from sweep.tracking.view import (
    NOTE,
    PARENT,
    TRIAL_KEY,
    VALUE_LIMIT,
    Amendment,
    DatasetCard,
    Names,
    all_rounded,
)

KIND = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI need not guess, and ask


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keep other sweeps out while the store is opened, and make a new SQLite file in one piece.

    MLflow makes its tables in many steps; two sweeps that do it at once, or one that is killed, would leave a file
    that no version of MLflow opens.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///"):
        yield
        return
    with hold(Path(f"{path}.lock"), wait=True):
        if not path.exists():
            new = Path(f"{path}.new")
            new.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
            new.replace(path)
        yield


class SweepRuns:
    """Opens the store, finds or makes the experiment (named like the search space) and makes the parent run.

    Args:
        uri: of the store or server.
        artifacts: root of the artifacts of a new experiment, None where a server decides.
        info: of the sweep.
        card: what trials are evaluated on.

    Attributes:
        experiment_id: of the experiment.
        run_id: of the parent run.
        sink: writes child runs.
    """

    def __init__(self, uri: str, artifacts: str | None, info: SweepInfo, card: DatasetCard) -> None:
        self._info = info
        with alone(uri):
            self._client = MlflowClient(tracking_uri=uri)
            experiment = self._experiment(artifacts)
        self.experiment_id, self.run_id = experiment, self._parent(experiment)
        request, state = info.request, info.state
        values = {"search": request.search, "samples": request.samples, "seed": request.seed, "total": state.total}
        known = self._client.get_run(self.run_id).data.params  # of an earlier session; a parameter never changes
        params = [Param(name, str(value)) for name, value in values.items() if value is not None and name not in known]
        versions = [RunTag(f"sweep.version.{name}", version) for name, version in state.versions.items()]
        self._client.log_batch(self.run_id, self._metrics("original_", state.original), params, versions)
        self._client.log_inputs(self.run_id, datasets=[dataset_input(card)])
        self._client.log_text(self.run_id, json.dumps(request.resolved, indent=1), "space.json")
        self.sink: Sink = make_sink(self._client, uri, experiment, self.run_id, card)

    def amend(self, amendments: Sequence[Amendment]) -> None:
        """Add metrics to child runs that are there; doing it again changes nothing."""
        for later in amendments:
            for run in children_of(self._client, self.experiment_id, self.run_id, later.key).values():
                new = {name: value for name, value in later.metrics.items() if run.data.metrics.get(name) != value}
                metrics = [Metric(name, value, later.at, 0) for name, value in new.items()]
                self._client.log_batch(run.info.run_id, metrics)

    def close(self, ending: Ending, names: Names) -> None:
        """End the parent run, mark the runs on the front, and save the experiment's view.

        Args:
            ending: what the run gets.
            names: of child runs.
        """
        self._client.log_batch(self.run_id, self._metrics("", all_rounded(ending.metrics)))
        for path in ending.artifacts:
            self._client.log_artifact(self.run_id, str(path))
        ids = self._mark(ending.front)
        text = description(ending.info or self._info, ending.front, names, self.experiment_id, self.run_id, ids)
        self._client.set_tag(self.run_id, NOTE, text)
        for tag, view in saved_views(self._info).items():
            self._client.set_experiment_tag(self.experiment_id, tag, view)
        self._client.set_terminated(self.run_id, ending.status)

    def _mark(self, front: Front) -> dict[str, str]:
        """Tag the runs on the front with their rank, and no others; key -> run."""
        before = f"tags.`{PARENT}` = '{self.run_id}' and {ON_FRONT}"
        for run in self._client.search_runs([self.experiment_id], before, max_results=1000):
            if run.data.tags.get(TRIAL_KEY) not in front.ranks:
                for tag in (FRONT, RANK):
                    self._client.delete_tag(run.info.run_id, tag)
        ids: dict[str, str] = {}
        for key, rank in front.ranks.items():
            for run in children_of(self._client, self.experiment_id, self.run_id, key).values():
                ids[key] = run.info.run_id
                self._client.log_batch(run.info.run_id, tags=[RunTag(FRONT, "true"), RunTag(RANK, str(rank))])
        return ids

    def _experiment(self, artifacts: str | None) -> str:
        name = self._info.request.space
        found = self._client.get_experiment_by_name(name)
        if found is None:
            root = f"{artifacts}/{name}" if artifacts else None
            try:
                return str(self._client.create_experiment(name, artifact_location=root, tags=KIND))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another sweep was faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _parent(self, experiment: str) -> str:
        """The sweep's own run; found again where an earlier attempt, or an earlier process, has made it."""
        info, start = self._info, round(self._info.state.started_at * 1e3)
        tags = {"sweep.name": info.name, "sweep.started": str(start), "sweep.baseline": info.state.baseline_key}
        found = parent_in(self._client, experiment, info)
        if found is None:
            return str(self._client.create_run(experiment, start, tags, info.name).info.run_id)
        run_id = str(found.info.run_id)
        if found.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _metrics(self, prefix: str, values: Mapping[str, float]) -> list[Metric]:
        now = round(self._info.state.started_at * 1e3)
        return [Metric(f"{prefix}{name}"[:VALUE_LIMIT], value, now, 0) for name, value in values.items()]


def parent_in(client: MlflowClient, experiment: str, info: SweepInfo) -> Run | None:
    """The run of a sweep in an experiment, by the sweep's name and when it was started."""
    start = round(info.state.started_at * 1e3)
    same = f"tags.`sweep.name` = '{info.name}' and tags.`sweep.started` = '{start}'"
    return next(iter(client.search_runs([experiment], same, max_results=1)), None)


def find_parent(client: MlflowClient, info: SweepInfo) -> Run | None:
    """The run of a sweep, if the store has one."""
    experiment = client.get_experiment_by_name(info.request.space)
    return None if experiment is None else parent_in(client, experiment.experiment_id, info)
