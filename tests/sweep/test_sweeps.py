"""Whole sweeps through the command line: real network, real Ray, real MLflow."""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from command_line import call, lines_of, started, wait_for

from benchmarks.faults.bed import processes
from core.pareto import hypervolume, pareto_front
from sweep.storage.reader import read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")]
SMALL = ["digits-quick", "--set", "baseline.epochs=2", "--set", "criterion=l1", "--workers", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def grid(folder: Path) -> dict:
    """The records' summary of a sweep over 16 configurations."""
    return json.loads(call(folder, "run", *SMALL, "--name", "grid", "--json"))


def test_every_configuration_has_a_record(folder, grid):
    sweep = read_sweep(folder / "results", "grid")
    assert sweep.info.status == "finished"
    assert len(sweep.records) == sweep.info.state.total == 16
    assert {record.status for record in sweep.records} == {"finished"}
    assert {record.provenance["baseline"] for record in sweep.records} == {sweep.info.state.baseline_key}
    assert all(record.metrics["accuracy_drop"] < 90 for record in sweep.records)
    assert grid["front"] == [] or grid["metrics"]["front_size"] == len(pareto_front(sweep.records))
    assert grid["metrics"]["hypervolume"] == pytest.approx(hypervolume(sweep.records))


def test_mlflow_has_the_same_nested(folder, grid):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/results/mlflow.db")
    parent = grid["mlflow"]["run_id"]
    assert grid["mlflow"] == {"run_id": parent, "logged": 16, "missing": 0}
    experiment = client.get_experiment_by_name("digits-quick").experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    records = read_sweep(folder / "results", "grid").records
    accuracy = {child.data.tags["sweep.trial_key"]: child.data.metrics["accuracy"] for child in children}
    assert accuracy == {record.key: round(record.metrics["accuracy"], 2) for record in records}
    files = {file.path for file in client.list_artifacts(parent)}
    assert files == {"front.csv", "front.json", "pareto.html", "pareto.png", "report.html", "space.json"}
    assert client.get_run(parent).data.metrics["hypervolume"] == pytest.approx(grid["metrics"]["hypervolume"])
    assert client.get_run(parent).info.status == "FINISHED"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_serves_and_ends(folder, grid, port, number):
    process = started(folder, "ui", "--port", str(port))
    assert process.stdout is not None
    where = process.stdout.readline().removeprefix("MLflow UI on ").removesuffix(" (Ctrl-C ends it)\n")
    assert (
        where == f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=sweep"
    )
    address = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=digits-quick"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert json.load(answer)["experiment"]["name"] == "digits-quick"
    run = grid["mlflow"]["run_id"]
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/get-artifact?path=pareto.png&run_uuid={run}", timeout=30
    ) as answer:
        assert answer.read(8) == b"\x89PNG\r\n\x1a\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    process.communicate()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is still there"


def page(folder: Path, address: str, *shown: str) -> str:
    """What headless Chromium makes of a page that shows these words, which are waited for.

    Its clock is virtual: a slow server's answer may come after the page was read, so it is looked at more than once.
    The window is high: of a long table, only the rows that are seen are there.
    """
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,6000"]
    words.append("--virtual-time-budget=30000")
    words += [f"--user-data-dir={folder / 'chromium'}", f"--screenshot={folder / 'ui.png'}", "--dump-dom", address]
    browser = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for _ in range(12):
        text = subprocess.run([browser, *words], capture_output=True, text=True, timeout=180, check=True).stdout
        missing = [word for word in shown if word not in html.unescape(text)]
        if not missing:
            return text
        time.sleep(2)
    raise AssertionError(f"{address} does not show {missing}")


@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="Chromium is not installed")
def test_a_browser_shows_the_runs_nested_and_the_plot(folder, grid, port):
    process = started(folder, "ui", "--port", str(port))
    try:
        assert process.stdout is not None
        process.stdout.readline()
        base = f"http://127.0.0.1:{port}/#/experiments/1/runs"
        children = f"tags.`mlflow.parentRunId` = '{grid['mlflow']['run_id']}'"  # the UI adds their parent to them
        page(folder, f"{base}?searchFilter={urllib.parse.quote(children)}", "digits-quick", ">grid<", "matching runs")
        plot = page(folder, f"{base}/{grid['mlflow']['run_id']}/artifacts/pareto.png", "front.csv", "pareto.html")
        assert 'src="blob:' in plot or "image-preview" in plot or "<img" in plot
        assert (folder / "ui.png").stat().st_size > 20_000
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="Chromium is not installed")
def test_from_the_experiment_two_links_lead_to_the_best_trial_under_a_size(folder, grid, port):
    """The address that is printed opens the saved view; the sweep's run has a table of the front with links.

    It comes before the larger sweeps of this file: of hundreds that are as accurate, MLflow loads one hundred.
    """
    small = max(
        (p for p in grid["front"] if p["metrics"]["params_fraction"] <= 0.3), key=lambda p: p["metrics"]["accuracy"]
    )
    process = started(folder, "ui", "--port", str(port))
    try:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("MLflow UI on ").removesuffix(" (Ctrl-C ends it)\n")
        home = address.partition("#")[0]
        runs = page(folder, address, "Sort: accuracy", f"#/experiments/1/runs/{grid['mlflow']['run_id']}")
        assert "Error loading shared view" not in runs
        (parent,) = set(re.findall(rf'href="[^"]*(#/experiments/1/runs/{grid["mlflow"]["run_id"]}[^"]*)"', runs))
        accuracy = f"{small['metrics']['accuracy']:.2f}"
        described = html.unescape(page(folder, f"{home}{parent}", "<tr", accuracy))
        row = next(row for row in described.split("<tr") if accuracy in row and "href" in row)
        child = re.search(r'href="[^"]*(#/experiments/1/runs/[^"]*)"', row)
        assert child is not None
        page(folder, f"{home}{child[1]}", small["key"])
        keys = [point["key"][:8] for point in grid["front"]]
        models = page(folder, f"{home}#/experiments/1/models?workflowType=machine_learning", *keys)
        assert models.count(">Ready<") >= len(grid["front"])
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_the_same_sweep_gives_the_same_records(folder, grid):
    """And the original network comes from the cache."""
    again = json.loads(call(folder, "run", *SMALL, "--search", "random", "--samples", "100", "--seed", "5", "--json"))
    assert again["name"] == "digits-quick"
    first, second = (read_sweep(folder / "results", name) for name in ("grid", "digits-quick"))
    assert first.info.state.baseline_key == second.info.state.baseline_key
    timed = ("latency_", "idle_")

    def results(sweep):
        return {r.key: {k: v for k, v in r.metrics.items() if not k.startswith(timed)} for r in sweep.records}

    assert results(first) == results(second)


@pytest.mark.parametrize("search", ["tpe", "nsga2"])
def test_an_optimiser_searches(folder, grid, search):
    words = ["--search", search, "--samples", "12", "--name", search, "--json"]
    done = json.loads(call(folder, "run", *SMALL, *words))
    assert done["metrics"]["trials_finished"] == 12
    assert len({r.key for r in read_sweep(folder / "results", search).records}) == 12


def test_status_pareto_and_the_refusals(folder, grid):
    state = json.loads(call(folder, "status", "grid", "--json"))
    assert (state["status"], state["finished"], state["failed"]) == ("finished", 16, 0)
    assert len(state["front"]) == grid["metrics"]["front_size"]
    assert "grid: finished, 16/16 trials" in call(folder, "status")
    call(folder, "pareto", "grid", "--x", "macs", "--format", "png,svg,html,csv,json", "--out", "plots")
    names = ["front-macs.csv", "front-macs.json", "pareto-macs.html", "pareto-macs.png", "pareto-macs.svg"]
    assert sorted(path.name for path in (folder / "plots").iterdir()) == names
    call(folder, "run", *SMALL, "--name", "grid", code=2)


@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "it was told to end")]
)
def test_a_signal_ends_a_sweep_cleanly(folder, grid, number, code, message):
    name = f"stopped-{code}"
    ratios = ",".join(f"{n / 2000:g}" for n in range(1, 1900))
    process = started(folder, "run", *SMALL, "--set", f"ratio=[{ratios}]", "--name", name)
    wait_for(lambda: lines_of(folder, name) >= 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert f"ended early: {message}; 'sweep resume {name}' goes on" in out
    sweep = read_sweep(folder / "results", name)
    assert sweep.info.status == "interrupted"
    assert 5 <= len(sweep.records) < sweep.info.state.total == 1899 * 4
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/results/mlflow.db")
    parent = client.get_run(sweep.info.state.run_id)
    assert parent.info.status == "KILLED"
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{sweep.info.state.run_id}'", max_results=50_000
    )
    assert {child.data.tags["sweep.trial_key"] for child in children} == {record.key for record in sweep.records}
    assert len(children) == len(sweep.records)


def test_a_killed_driver_leaves_its_records(folder, grid):
    ratios = ",".join(f"{n / 2000:g}" for n in range(1, 1900))
    process = started(folder, "run", *SMALL, "--set", f"ratio=[{ratios}]", "--name", "killed")
    wait_for(lambda: lines_of(folder, "killed") >= 5)
    assert json.loads(call(folder, "status", "killed", "--json"))["status"] == "running"
    process.kill()
    process.communicate()
    state = json.loads(call(folder, "status", "killed", "--json"))
    assert state["status"] == "interrupted"
    assert state["finished"] >= 5
    wait_for(lambda: not workers_of(process.pid))  # its Ray ends by itself


def workers_of(session: int) -> list[str]:
    """Ray's node and workers of a command's own session that are still there; its agents take a minute to notice."""
    found = [words for _, words in processes(session) if "raylet" in words or "ray::" in words]
    return [words for words in found if "Agent" not in words]


def test_compress_reproduces_the_paper(folder, reference):
    checkpoint = str(reference / "lenet_300_100_fashion_mnist.safetensors")
    network = ["--model", "lenet-300-100", "--checkpoint", checkpoint, "--dataset", "fashion-mnist"]
    method = ["--ratio", "0.8", "--criterion", "l1", "--decomposition", "most-similar", "--option", "threshold=0.45"]
    report = json.loads(call(folder, "compress", *network, *method, "--out", "small.safetensors", "--json"))
    assert report["accuracy"] == 80.02
    assert report["original"]["accuracy"] == 89.8
    assert (folder / "small.safetensors").stat().st_size < 220_000
    table = call(folder, "compress", *network, *method)
    assert "80.02" in table
    assert "ip1: 60 of 300 channels kept" in table
