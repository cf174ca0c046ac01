"""Networks of a sweep as MLflow's logged models, which its Models tab lists, and as versions of registered ones.

A logged model is an MLflow model directory (flavours ``pytorch`` and ``python_function``) whose network is a program of
`torch.export`: it loads without this package, and nothing in it is pickled. Our own file and its card lie beside it.
Its example input is zeros: nobody's images belong there. Imports MLflow and torch.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pytorch
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from torch import Tensor, nn

from core.errors import UsageError, first_line
from core.export import load
from core.metrics import fraction_of
from core.records import TrialRecord
from sweep.errors import TrackingError
from sweep.reporting.progress import Reporter
from sweep.reporting.silence import quiet
from sweep.storage.info import SweepInfo
from sweep.tracking.runs import find_parent
from sweep.tracking.sinks import children_of
from sweep.tracking.summary import FRONT, RANK, Network
from sweep.tracking.view import TRIAL_KEY, VALUE_LIMIT, all_rounded, params_of

KIND = "compressed network"
UNUSABLE = re.compile(r"[^\w-]+")
"""What MLflow takes in no model's name."""
PROGRAM = "sweep.program"
"""Tag of a logged model that is our own file alone: why it is no program."""


class ModelLog:
    """The logged models of one sweep, in one MLflow store.

    Args:
        uri: of the store or server.
        info: of the sweep.
        original: the network that it compressed.
        inputs: zeros (n, …), one for each argument of the network.

    Raises:
        TrackingError: the sweep is not there.
    """

    def __init__(self, uri: str, info: SweepInfo, original: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._info, self._original, self._inputs = info, original, inputs
        self._uri, self._client = uri, MlflowClient(tracking_uri=uri, registry_uri=uri)
        parent = find_parent(self._client, info)
        if parent is None:
            raise TrackingError(f"MLflow has no run of sweep {info.name!r} there; 'sweep sync {info.name}' writes it")
        self._experiment, self._parent = parent.info.experiment_id, parent.info.run_id

    def there(self) -> dict[str, LoggedModel]:
        """Those that are complete, by trial key."""
        where = f"tags.`sweep.parent` = '{self._parent}'"
        found: list[LoggedModel] = []
        token: str | None = None
        while True:
            page = self._client.search_logged_models([self._experiment], where, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        return {m.tags.get(TRIAL_KEY, ""): m for m in found if m.status == LoggedModelStatus.READY}

    def front(self, networks: Sequence[Network], reporter: Reporter) -> None:
        """Log the networks on the front that are not there yet, and tag those that are on it, or have left it."""
        there, ranks = self.there(), {one.record.key: place for place, one in enumerate(networks, 1)}
        new = [one for one in networks if one.record.key not in there]
        for number, one in enumerate(new):
            reporter.step(number, len(new), f"network {one.record.key} goes to MLflow")
            there[one.record.key] = self.log(one)
        if new:
            reporter.step(len(new), len(new), f"{len(new)} networks are in MLflow")
        for key, model in there.items():
            wanted = {FRONT: str(key in ranks).lower(), RANK: str(ranks.get(key, ""))}
            if any(model.tags.get(tag) != value for tag, value in wanted.items()):
                self._client.set_logged_model_tags(model.model_id, wanted)

    def log(self, one: Network) -> LoggedModel:
        """Log one network with its trial's parameters and metrics, linked to its run and the data.

        Raises:
            TrackingError: its run is not there.
            mlflow.exceptions.MlflowException: the store refuses something.
        """
        record, client = one.record, self._client
        run = children_of(client, self._experiment, self._parent, record.key).get(record.key)
        if run is None:
            raise TrackingError(f"MLflow has no run of trial {record.key}; 'sweep sync' writes it")
        run_id = run.info.run_id
        tags = {TRIAL_KEY: record.key, "sweep.parent": self._parent, "sweep.name": self._info.name}
        model = client.create_logged_model(self._experiment, name_of(record), run_id, tags, params_of(record), KIND)
        try:
            with tempfile.TemporaryDirectory() as folder:
                problem = self._write(one, Path(folder) / "model", model.model_id, run_id)
                client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
            if problem:
                client.set_logged_model_tags(model.model_id, {PROGRAM: problem[:VALUE_LIMIT]})
            data = self._info.state.dataset
            for name, value in all_rounded(record.metrics).items():
                client.log_metric(
                    run_id,
                    name,
                    value,
                    dataset_name=data.get("name"),
                    dataset_digest=data.get("digest"),
                    model_id=model.model_id,
                )
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        except BaseException:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
            raise
        return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def register(self, model: LoggedModel, name: str, alias: str = "") -> str:
        """Make a logged model the next version of a registered one.

        Returns:
            Its version.

        Raises:
            UsageError: MLflow refuses the name or the alias.
        """
        client = self._client
        try:
            if not client.search_registered_models(f"name = '{name}'", max_results=1):
                client.create_registered_model(name)
            source = f"models:/{model.model_id}"
            with tracking_at(self._uri):
                made = client.create_model_version(name, source, model.source_run_id, model_id=model.model_id)
            if alias:
                client.set_registered_model_alias(name, alias, made.version)
        except MlflowException as error:
            raise UsageError(f"MLflow does not register {name!r}: {first_line(error)}") from None
        return str(made.version)

    def _write(self, one: Network, folder: Path, model_id: str, run_id: str) -> str:
        """The model directory; without a program, our files alone. Why there is none, or nothing."""
        weights = one.files[0]
        try:
            with quiet(), torch.no_grad():
                network = self._network(weights)
                zeros, signature = _signature(self._inputs, network(*self._inputs))
                mlflow.pytorch.save_model(
                    network,
                    folder,
                    mlflow_model=Model(run_id=run_id, model_id=model_id),
                    signature=signature,
                    input_example=zeros,
                    pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
                    extra_files=[str(path) for path in one.files],
                    serialization_format="pt2",
                )
        except Exception as error:  # whatever torch cannot express
            for path in one.files:
                folder.mkdir(exist_ok=True)
                (folder / path.name).write_bytes(path.read_bytes())
            return f"only our own file: {first_line(error)}"
        return ""

    def _network(self, weights: Path) -> nn.Module:
        try:
            return load(weights)
        except UsageError:  # of the user's own factory
            return load(weights, factory=lambda: copy.deepcopy(self._original))


def _signature(inputs: tuple[Tensor, ...], output: Any) -> tuple[Any, ModelSignature]:
    """The example input as an array, and the shapes of input and output.

    Raises:
        UsageError: MLflow's models of torch cannot express them.
    """
    if len(inputs) > 1:
        raise UsageError(f"the network takes {len(inputs)} inputs, and MLflow's models of torch take one")
    if not isinstance(output, Tensor):
        raise UsageError(f"the network gives a {type(output).__name__}, and MLflow's models of torch a tensor")
    zeros, found = inputs[0].numpy(), output.numpy()
    given, gives = (Schema([TensorSpec(x.dtype, (-1, *x.shape[1:]))]) for x in (zeros, found))
    return zeros, ModelSignature(given, gives)


@contextlib.contextmanager
def tracking_at(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's own address within the block: its registry looks a logged model up there."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def name_of(record: TrialRecord) -> str:
    """What a logged model is called: how much is left, by which methods, and the trial's key."""
    left = record.metrics.get(fraction_of("params"), math.nan)
    size = "" if math.isnan(left) else f"{100 * left:.0f}pct-"
    return UNUSABLE.sub("-", f"{size}{record.decomposition}-{record.criterion}-{record.key[:8]}")
