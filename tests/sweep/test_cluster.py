"""Clusters: code that reaches other machines, room for workers, and nodes that are lost."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from clusters import Cluster, cluster, wait_for

from core.errors import UsageError
from sweep.backend.cluster import REMAINS_SECONDS, _leave, _why_not, check_request, clear_remains
from sweep.backend.nodes import room
from sweep.backend.shipping import LIMIT_BYTES, PACKAGES, pack_code, user_modules
from sweep.reporting.meter import Progress
from sweep.reporting.telemetry import GAUGES, Telemetry
from sweep.storage.info import ClusterRequest
from sweep.storage.reader import read_sweep

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
ROOT = Path(__file__).parents[2]
NETWORK = """
from torch import nn
from {helper} import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden, self.out = nn.Linear(28 * 28, WIDTH), nn.Linear(WIDTH, num_classes)

    def forward(self, images):
        return self.out(self.hidden(images.flatten(1)).relu())

def make(num_classes=10):
    return Net(num_classes)
"""
SPACE = """
name = "mine"
description = "a network of the user's own"
[baseline]
model = "{module}:make"
dataset = "digits"
epochs = 2
[search]
algorithm = "grid"
[axes]
ratio = {{ values = [0.3, 0.5, 0.7] }}
criterion = {{ values = ["l1", "l2"] }}
"""


@pytest.fixture
def own_network(tmp_path, monkeypatch) -> Iterator[str]:
    """A user's module with a helper beside it, in the current directory; the module's name."""
    (tmp_path / "net_of_mine.py").write_text(NETWORK.format(helper="helpers_of_mine.sizes"))
    (tmp_path / "helpers_of_mine" / "__pycache__").mkdir(parents=True)
    (tmp_path / "helpers_of_mine" / "__init__.py").touch()
    (tmp_path / "helpers_of_mine" / "sizes.py").write_text("WIDTH = 20\n")
    (tmp_path / "not_imported.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "net_of_mine"
    for name in ("net_of_mine", "helpers_of_mine", "helpers_of_mine.sizes"):
        sys.modules.pop(name, None)


def test_our_code_and_the_users_are_packed(own_network, tmp_path):
    folder = pack_code(tmp_path / "packed", [f"{own_network}:make", "digits"])
    assert sorted(path.name for path in folder.iterdir()) == sorted([*PACKAGES, "helpers_of_mine", "net_of_mine.py"])
    assert (folder / "helpers_of_mine" / "sizes.py").is_file()
    assert (folder / "sweep/backend/worker.py").read_bytes() == (ROOT / "sweep/backend/worker.py").read_bytes()
    assert not list(folder.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2**21


def test_what_is_installed_or_built_in_is_not_packed():
    assert user_modules(["lenet-300-100", "digits", "torchvision:resnet18", "image-folder:/data"]) == []
    assert user_modules(["sklearn.datasets:load_digits"]) == []


def test_a_package_full_of_data_is_refused(own_network, tmp_path):
    with (tmp_path / "helpers_of_mine" / "weights.bin").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(UsageError, match=r"helpers_of_mine is 100 MB .* keep data out of the package"):
        pack_code(tmp_path / "packed", [f"{own_network}:make"])


@pytest.mark.parametrize(
    ("gpus_per_trial", "nodes", "workers"),
    [
        (0, [(4, 0), (2, 0)], 6),
        (1, [(4, 2), (4, 1)], 3),
        (0.25, [(4, 1), (4, 1)], 8),
        (0.25, [(2, 1), (8, 1)], 6),  # the first node has CPUs for two
        (0.4, [(8, 2)], 4),  # a fraction is a share of one GPU
        (1 / 3, [(8, 1)], 3),
        (2, [(8, 3), (8, 4)], 3),
        (0.5, [(0, 4), (8, 0)], 0),  # GPUs and CPUs must be on one node
    ],
)
def test_room_for_workers(gpus_per_trial, nodes, workers):
    assert room([{"Resources": {"CPU": float(c), "GPU": float(g)}} for c, g in nodes], gpus_per_trial) == workers


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ClusterRequest(gpus_per_trial=1.5, address="auto"), "above 1, give a whole number"),
        (ClusterRequest(gpus_per_trial=float("inf"), address="auto"), "give 0 or more"),
        (ClusterRequest(gpus_per_trial=float("nan"), address="auto"), "give 0 or more"),
        (ClusterRequest(workers=0), "give at least 1"),
        (ClusterRequest(address="ray://head:10001"), "give HOST:PORT"),
    ],
)
def test_requests_that_cannot_work(request_, message):
    with pytest.raises(UsageError, match=message):
        check_request(request_)


def test_other_versions_are_told_in_one_sentence():
    lines = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.9.1\nThis process on 10.0.0.1"
    )
    told = _why_not(RuntimeError(f"{lines} was started with:\n    Ray: 2.2.0\n    Python: 3.10.0\n"))
    here = f"this machine Ray {ray.__version__} on Python {sys.version.split()[0]}"
    assert told == f"it runs Ray 2.1.0 on Python 3.9.1, {here}; install the same versions on both"


class Gauge:
    """Stands in for Ray's, and keeps what it was set to."""

    def __init__(self) -> None:
        self.values: list[tuple[dict[str, str], float]] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values.append((tags, value))


@pytest.fixture
def gauges(monkeypatch) -> dict[str, Gauge]:
    made = {name: Gauge() for name in GAUGES}
    monkeypatch.setattr("sweep.reporting.telemetry._gauges", lambda: made)
    return made


NOW = Progress(finished=7, failed=1, stopped=2, total=30, rate=2.0, eta_seconds=float("nan"), best=None)


def test_metrics_are_set_now_and_then(gauges):
    telemetry = Telemetry("first", workers=3)
    asked: list[int] = []

    def hypervolume() -> float:
        asked.append(1)
        return 40.0

    for _ in range(1000):
        telemetry.update(NOW, hypervolume)
    assert len(asked) == 1
    telemetry.update(NOW, hypervolume, last=True)
    assert len(asked) == 2
    first = {"sweep": "first"}
    trials = {tags["status"]: value for tags, value in gauges["sweep_trials"].values}
    assert trials == {"finished": 7, "failed": 1, "stopped": 2, "waiting": 20}
    assert gauges["sweep_workers"].values == [(first, 3)]
    assert gauges["sweep_hypervolume"].values == [(first, 40.0)] * 2
    assert gauges["sweep_trials_per_second"].values == [(first, 2.0)] * 2
    assert gauges["sweep_eta_seconds"].values == [], "unknown is not a number to show"


def test_a_private_ray_has_no_metrics(gauges):
    telemetry = Telemetry("first", workers=3, enabled=False)
    telemetry.update(NOW, lambda: 1 / 0, last=True)
    assert not any(gauge.values for gauge in gauges.values())


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """A head, and a node with a GPU and an old version of us that sees neither this folder nor /tmp."""
    old = ["mount -t tmpfs none /mnt", "mkdir /mnt/core", "echo 'raise RuntimeError' > /mnt/core/__init__.py"]
    with cluster(nodes=1, hidden=[ROOT, Path("/tmp")]) as made:
        made.add_node(cpus=2, gpus=1, setup=old, environment={"PYTHONPATH": "/mnt"} if made.isolated else {})
        yield made


def sweep(made: Cluster, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start ``sweep`` beside the head, in ``folder``."""
    return subprocess.Popen(
        made.beside_head([sys.executable, "-m", "sweep.cli", *words]),
        cwd=folder,
        env=made.environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(results: Path, name: str) -> list[str]:
    """Trial keys of the MLflow child runs of a sweep."""
    from mlflow import MlflowClient

    client, parent = MlflowClient(f"sqlite:///{results}/mlflow.db"), read_sweep(results, name).info.state.run_id
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10_000)
    return sorted(run.data.tags["sweep.trial_key"] for run in runs)


def finished(process: subprocess.Popen[str]) -> dict:
    """What a sweep that was started with --json says at its end."""
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_a_node_that_shares_nothing_runs_our_code_and_the_users(two_nodes, own_network, tmp_path):
    """All trials run there, since only that node has a (logical) GPU; half of it each."""
    (tmp_path / "mine.toml").write_text(SPACE.format(module=own_network))
    where = ["--address", two_nodes.address, "--gpus-per-trial", "0.5", "--json"]
    process = sweep(two_nodes, tmp_path, "run", "mine.toml", *where)
    done = finished(process)
    assert done["metrics"]["trials_finished"] == 6
    stored = read_sweep(tmp_path / "results", "mine")
    assert stored.info.state.workers == 2
    assert len(children(tmp_path / "results", "mine")) == 6


@pytest.mark.slow
def test_a_lost_node_costs_no_trial(two_nodes, tmp_path):
    """The second node is killed while it works: every configuration still has one record and one child run."""
    ratios = ",".join(f"{number / 1000:g}" for number in range(1, 301))
    words = ["--set", f"ratio=[{ratios}]", "--set", "criterion=l1", "--set", "decomposition=least-squares"]
    where = ["--address", two_nodes.address, "--name", "lost", "--json"]
    process = sweep(two_nodes, tmp_path, "run", "digits-quick", "--set", "baseline.epochs=2", *words, *where)
    trials = tmp_path / "results" / "lost" / "trials.jsonl"
    wait_for(lambda: trials.is_file() and trials.read_bytes().count(b"\n") >= 30, 120, "thirty trials")
    two_nodes.nodes[1].kill()
    done = finished(process)  # and nothing but JSON was printed
    assert done["metrics"]["trials_finished"] == 300
    stored = read_sweep(tmp_path / "results", "lost")
    assert stored.info.state.workers == 3
    keys = sorted(record.key for record in stored.records)
    assert len(set(keys)) == len(keys) == 300
    assert children(tmp_path / "results", "lost") == keys


PREEMPTED = """
import sys, threading, time
from pathlib import Path
import sweep_fakes as fakes
from ray import cloudpickle, nodes
from ray._raylet import GcsClient
from core.config import TrialConfig
from sweep.backend.cluster import connected
from sweep.backend.execute import execute
from sweep.backend.stopping import StopRequest
from sweep.backend.worker import Work
from sweep.backend.workqueue import WorkQueue
from sweep.search.listed import ListPlanner
from sweep.storage.info import ClusterRequest

address, folder = sys.argv[1], Path(sys.argv[2])
cloudpickle.register_pickle_by_value(fakes)
returned = folder / "returned"

def slow(config, folder):
    time.sleep(0.3)
    return fakes.trial(config, folder)

cloudpickle.register_pickle_by_value(sys.modules["__main__"])

def on_record(record):
    with returned.open("a") as log:
        log.write(f"{record.key} {record.status}\\n")

def take_away(name):
    while not returned.is_file() or returned.read_text().count("\\n") < 10:
        time.sleep(0.1)
    answer = GcsClient(address).drain_node(name, 2, "the cloud wants it back", int(time.time() * 1000) + 500)
    (folder / "drained").write_text(repr(answer))

with connected(ClusterRequest(address=address, workers=2), 10**6) as workers:
    (worker,) = [node["NodeID"] for node in nodes() if node["Resources"].get("CPU") == 2]
    threading.Thread(target=take_away, args=[worker], daemon=True).start()
    queue = WorkQueue(ListPlanner([TrialConfig(ratio=n / 1000) for n in range(80)]), workers, on_record, 0.3)
    execute(queue, fakes.Bench(str(folder)), Work(slow), workers, StopRequest())
"""


@pytest.mark.slow
def test_a_preempted_node_costs_no_attempt_and_nothing_that_came_back_runs_again(tmp_path):
    """The node with all workers is drained, then gone; its successor does what was under way, and only that."""
    (tmp_path / "driver.py").write_text(PREEMPTED)
    with cluster(nodes=1, head_cpus=0) as made:
        first = made.add_node(cpus=2)
        command = made.beside_head([sys.executable, "driver.py", made.address, str(tmp_path)])
        paths = f"{ROOT}:{ROOT / 'tests' / 'sweep'}"
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=made.environment | {"PYTHONPATH": paths}, stdout=log, stderr=log
            )
        try:
            wait_for((tmp_path / "drained").is_file, 120, "the node to be drained")
            time.sleep(1)
            first.kill()
            kept = {line.split()[0] for line in (tmp_path / "returned").read_text().splitlines()}
            made.add_node(cpus=2)
            assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            process.kill()
            process.wait()
    assert (tmp_path / "drained").read_text().startswith("(True")
    statuses = [line.split() for line in (tmp_path / "returned").read_text().splitlines()]
    assert len(statuses) == 80
    assert {status for _, status in statuses} == {"finished"}
    times = Counter((tmp_path / "runs").read_text().split())
    assert {times[key] for key in kept} == {1}


def test_the_remains_of_killed_drivers_are_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, new, alive, other = (tmp_path / name for name in ("sweep-ray-a", "sweep-ray-b", "sweep-ray-c", "sweep-x"))
    for folder in (old, new, alive, other):
        (folder / "session").mkdir(parents=True)
    with (alive / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        past = time.time() - REMAINS_SECONDS - 10
        for folder in (old, alive, other):
            os.utime(folder, (past, past))
        clear_remains()
    assert sorted(tmp_path.iterdir()) == sorted((new, alive, other))


def test_no_garbage_is_left_to_be_collected_while_ray_shuts_down(monkeypatch):
    class Garbage:
        def __init__(self) -> None:
            self.me = self

    seen: list[bool] = []
    gone = weakref.ref(Garbage())
    monkeypatch.setattr(ray, "shutdown", lambda: seen.extend((gone() is None, not gc.isenabled())))
    _leave()
    assert seen == [True, True]
    assert gc.isenabled()
