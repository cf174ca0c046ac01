"""Two ways to write child runs: through MLflow's client (any store), or many in one transaction (SQLite).

MLflow's tables are no public interface, so the second way is left for the first at its first error; see `CarefulSink`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from sweep.errors import first_line
from sweep.tracking.view import PARENT, TRIAL_KEY, ChildRun, DatasetCard

CONTEXT = "mlflow.data.context"
CONNECTIONS = 4
LOG = logging.getLogger(__name__)
PASSING = ("database is locked", "database or disk is full", "disk I/O error", "No space left")
"""In SQLite's messages: what goes away by itself, or when somebody makes room."""


class Sink(Protocol):
    """Writes child runs; writing one again after an error makes no second one.

    Attributes:
        slow_because: one sentence when the fast way had to be left, else empty.
    """

    slow_because: str

    @property
    def written(self) -> set[str]:
        """The trial keys of the child runs that are there."""

    def write(self, children: Sequence[ChildRun]) -> None:
        """Write all of ``children``.

        Raises:
            Exception: whatever stood in the way of one of them.
        """


def dataset_input(card: DatasetCard) -> DatasetInput:
    """The dataset as MLflow's input of a run."""
    dataset = Dataset(card.name, card.digest, "local", card.source, schema=card.schema, profile=card.profile)
    return DatasetInput(dataset, tags=[InputTag(CONTEXT, card.split)])


class ClientSink:
    """Through `MlflowClient`: create the run, one ``log_batch``, its dataset, its end. A few at a time."""

    def __init__(self, client: MlflowClient, experiment_id: str, parent: str, card: DatasetCard) -> None:
        self._client, self._experiment, self._parent = client, experiment_id, parent
        self._dataset = dataset_input(card)
        found = children_of(client, experiment_id, parent)
        self._runs = {key: run.info.run_id for key, run in found.items()}
        self.written = {key for key, run in found.items() if run.info.status != "RUNNING"}
        self._doubtful: set[str] = set()
        self.slow_because = ""

    def write(self, children: Sequence[ChildRun]) -> None:
        """Write all of ``children``.

        Raises:
            Exception: the first error, after the others were written.
        """
        left = [child for child in children if child.key not in self.written]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            errors = [error for error in pool.map(self._try, left) if error is not None]
        if errors:
            raise errors[0]

    def _try(self, child: ChildRun) -> Exception | None:
        try:
            self._write(child)
        except Exception as error:  # whatever the server or the network does, the sweep goes on
            return error
        return None

    def _write(self, child: ChildRun) -> None:
        run_id = self._runs.get(child.key) or self._create(child)
        self._runs[child.key] = run_id
        metrics = [Metric(name, value, child.end, step) for name, value, step in child.points()]
        self._client.log_batch(run_id, metrics, [Param(name, value) for name, value in child.params.items()])
        self._client.log_inputs(run_id, datasets=[self._dataset])
        self._client.set_terminated(run_id, child.status, child.end)
        self.written.add(child.key)

    def _create(self, child: ChildRun) -> str:
        """Create the run; after an error, first look whether the server did it all the same."""
        if child.key in self._doubtful:
            found = children_of(self._client, self._experiment, self._parent, child.key)
            if child.key in found:
                return str(found[child.key].info.run_id)
        self._doubtful.add(child.key)
        run = self._client.create_run(self._experiment, child.start, child.tags, child.name)
        return str(run.info.run_id)


class SqliteSink:
    """Into MLflow's SQLite file directly, through MLflow's own table definitions, a batch in one transaction.

    # NOTE: the client needs 18 ms of CPU for a run (4 transactions, each with several queries), as much as a short
    # trial; this way it is 0.5 ms. A run is there completely or not at all, whenever the process dies.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, parent: str, card: DatasetCard) -> None:
        client.log_inputs(parent, datasets=[dataset_input(card)])  # files the dataset, once for the experiment
        experiment = client.get_experiment(experiment_id)
        self._experiment, self._artifacts = int(experiment_id), experiment.artifact_location
        self._user, self._parent, self._split = client.get_run(parent).info.user_id, parent, card.split
        self._engine = client._tracking_client.store.engine
        self._dataset = self._dataset_uuid(card)
        self.written: set[str] = set()
        self.begun: set[str] = set()
        """Keys of runs that the client has made and could not end; it has to finish them."""
        self.look()

    def look(self) -> None:
        """Read which runs are there."""
        states = self._states()
        self.written = {key for key, status in states.items() if status != "RUNNING"}
        self.begun = states.keys() - self.written

    def write(self, children: Sequence[ChildRun]) -> None:
        """Write those of ``children`` that are not there yet."""
        import sqlalchemy

        rows = self._rows([child for child in children if child.key not in self.written])
        with self._engine.begin() as connection:
            for table, values in rows.items():
                if values:
                    connection.execute(sqlalchemy.insert(tables()[table]), values)
        self.written.update(child.key for child in children)

    def _states(self) -> dict[str, str]:
        """The status of every child run that is there, by its trial's key."""
        import sqlalchemy

        tags, runs = tables()["tags"], tables()["runs"]
        own = sqlalchemy.select(tags.c.run_uuid).where(tags.c.key == PARENT, tags.c.value == self._parent)
        keys = sqlalchemy.select(tags.c.value, runs.c.status).where(
            tags.c.key == TRIAL_KEY, tags.c.run_uuid.in_(own), runs.c.run_uuid == tags.c.run_uuid
        )
        with self._engine.connect() as connection:
            return {str(key): str(status) for key, status in connection.execute(keys)}

    def _dataset_uuid(self, card: DatasetCard) -> str:
        import sqlalchemy

        table = tables()["datasets"]
        query = sqlalchemy.select(table.c.dataset_uuid).where(
            table.c.experiment_id == self._experiment, table.c.name == card.name, table.c.digest == card.digest
        )
        with self._engine.connect() as connection:
            return str(connection.execute(query).scalar_one())

    def _rows(self, children: Sequence[ChildRun]) -> dict[str, list[dict[str, Any]]]:
        names = ("runs", "params", "metrics", "latest_metrics", "tags", "inputs", "input_tags")
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for child in children:
            run, link = uuid.uuid4().hex, uuid.uuid4().hex
            rows["runs"].append(self._run_row(child, run))
            rows["params"] += [{"run_uuid": run, "key": key, "value": value} for key, value in child.params.items()]
            rows["tags"] += [{"run_uuid": run, "key": key, "value": value} for key, value in child.tags.items()]
            for table, points in (("metrics", child.points()), ("latest_metrics", child.latest())):
                rows[table] += [
                    {"run_uuid": run, "key": key, "value": value, "timestamp": child.end, "step": step, "is_nan": False}
                    for key, value, step in points
                ]
            rows["inputs"].append(
                {
                    "input_uuid": link,
                    "source_type": "DATASET",
                    "source_id": self._dataset,
                    "destination_type": "RUN",
                    "destination_id": run,
                }
            )
            rows["input_tags"].append({"input_uuid": link, "name": CONTEXT, "value": self._split})
        return rows

    def _run_row(self, child: ChildRun, run: str) -> dict[str, Any]:
        return {
            "run_uuid": run,
            "name": child.name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": self._user,
            "status": child.status,
            "start_time": child.start,
            "end_time": child.end,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": f"{self._artifacts}/{run}/artifacts",
            "experiment_id": self._experiment,
        }


class CarefulSink:
    """A `SqliteSink` up to its first error, and a `ClientSink` from then on, which first reads what is there.

    An error that passes (a locked file, a full disk) is raised, so that the same is tried again later: the client could
    do no better, and would leave runs half made.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, parent: str, card: DatasetCard) -> None:
        self._place = (client, experiment_id, parent, card)
        self._direct: SqliteSink | None = None
        self._through_client: ClientSink | None = None
        self.slow_because = ""
        self._in_doubt = False
        try:
            self._direct = SqliteSink(*self._place)
        except MlflowException:
            raise  # the store itself; whoever asked for a sink tries again
        except Exception as error:  # another version of MLflow inside
            self._leave(error)
            self._through_client = ClientSink(*self._place)

    @property
    def written(self) -> set[str]:
        """The trial keys of the child runs that are there; after an error, of those that certainly are."""
        sink = self._through_client or self._direct
        return sink.written if sink is not None else set()

    def write(self, children: Sequence[ChildRun]) -> None:
        """Write all of ``children``; what is there already is not written again.

        Raises:
            Exception: whatever stood in the client's way.
        """
        if self._direct is not None and not self.slow_because:
            try:
                if self._in_doubt:  # whether the last transaction was done or not
                    self._direct.look()
                self._finish_begun(self._direct, children)
                self._direct.write(children)
                self._in_doubt = False
                return
            except Exception as error:
                self._in_doubt = True
                if any(text in str(error) for text in PASSING):
                    raise
                self._leave(error)
        if self._through_client is None:
            self._through_client = ClientSink(*self._place)
        self._through_client.write(children)

    def _finish_begun(self, direct: SqliteSink, children: Sequence[ChildRun]) -> None:
        """Let the client end the runs that it once began; another run of the same trial would be a second one."""
        begun = [child for child in children if child.key in direct.begun]
        if begun:
            ClientSink(*self._place).write(begun)
            keys = {child.key for child in begun}
            direct.begun -= keys
            direct.written |= keys

    def _leave(self, error: Exception) -> None:
        self.slow_because = (
            f"MLflow's tables could not be written directly ({type(error).__name__}: {first_line(error)});"
            " child runs go through its client from now on, which is slower"
        )
        LOG.warning("%s", self.slow_because)


def make_sink(client: MlflowClient, uri: str, experiment_id: str, parent: str, card: DatasetCard) -> Sink:
    """The fastest sink for the store at ``uri``."""
    kind = CarefulSink if uri.startswith("sqlite:") else ClientSink
    return kind(client, experiment_id, parent, card)


def children_of(client: MlflowClient, experiment_id: str, parent: str, key: str = "") -> dict[str, Run]:
    """The child runs of ``parent`` by trial key; with ``key``, only that one."""
    where = f"tags.`{PARENT}` = '{parent}'" + (f" and tags.`{TRIAL_KEY}` = '{key}'" if key else "")
    found: dict[str, Run] = {}
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], where, max_results=1000, page_token=token)
        found |= {run.data.tags.get(TRIAL_KEY, ""): run for run in page}
        token = page.token
        if not token:
            return found


def tables() -> dict[str, Any]:
    """MLflow's tables by name."""
    from mlflow.store.db.base_sql_model import Base

    return dict(Base.metadata.tables)
