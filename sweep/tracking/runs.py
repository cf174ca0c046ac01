"""A sweep's place in MLflow: its experiment, its parent run, and the sink for its child runs. Imports MLflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from sweep.storage.info import SweepInfo
from sweep.storage.locks import hold
from sweep.tracking.sinks import Sink, children_of, dataset_input, make_sink
from sweep.tracking.view import VALUE_LIMIT, Amendment, DatasetCard

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
    """

    def __init__(self, uri: str, artifacts: str | None, info: SweepInfo, card: DatasetCard) -> None:
        self._info = info
        with alone(uri):
            self._client = MlflowClient(tracking_uri=uri)
            experiment = self._experiment(artifacts)
        self._experiment_id, self.run_id = experiment, self._parent(experiment)
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
            for run in children_of(self._client, self._experiment_id, self.run_id, later.key).values():
                new = {name: value for name, value in later.metrics.items() if run.data.metrics.get(name) != value}
                metrics = [Metric(name, value, later.at, 0) for name, value in new.items()]
                self._client.log_batch(run.info.run_id, metrics)

    def close(self, status: str, metrics: Mapping[str, float], artifacts: Sequence[Path]) -> None:
        """End the parent run.

        Args:
            status: FINISHED, FAILED or KILLED.
            metrics: of the whole sweep.
            artifacts: files that the run gets.
        """
        self._client.log_batch(self.run_id, self._metrics("", metrics))
        for path in artifacts:
            self._client.log_artifact(self.run_id, str(path))
        self._client.set_terminated(self.run_id, status)

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
        same = f"tags.`sweep.name` = '{info.name}' and tags.`sweep.started` = '{start}'"
        found = self._client.search_runs([experiment], same, max_results=1)
        if not found:
            return str(self._client.create_run(experiment, start, tags, info.name).info.run_id)
        run_id = str(found[0].info.run_id)
        if found[0].info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _metrics(self, prefix: str, values: Mapping[str, float]) -> list[Metric]:
        now = round(self._info.state.started_at * 1e3)
        return [Metric(f"{prefix}{name}"[:VALUE_LIMIT], value, now, 0) for name, value in values.items()]
