"""The files that deploy a cluster: containers, metrics, dashboard, Kubernetes. No engine is needed to check them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.reporting.telemetry import GAUGES

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
SECRETS = ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD")
RAY_METRICS = {
    "ray_node_cpu_utilization",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_object_store_available_memory",
    "ray_object_store_used_memory",
    "ray_resources",
}
NODE_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
CLUSTER_FIELDS = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
JOB_FIELDS = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}


def pinned(image: str) -> bool:
    """True for a tag with a full version number."""
    return re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?", image) is not None


def dashboard() -> dict[str, Any]:
    return json.loads((ROOT / "dashboards/grafana/sweeps.json").read_text())


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_pinned_healthy_and_private(name):
    service = SERVICES[name]
    assert pinned(service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name == "sweep" else "unless-stopped")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "reachable from outside"
    for other, need in service.get("depends_on", {}).items():
        assert need == {"condition": "service_healthy"}
        assert other in SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_up(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"])
    assert "privileged" not in service
    allowed = {"postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]}
    assert service.get("cap_add", []) == allowed.get(name, [])


def test_what_services_write_to_is_a_volume_or_memory():
    written = {
        "ray-head": ["/tmp/ray"],
        "sweep": ["/work", "/home/sweep"],
        "mlflow": ["/artifacts", "/home/sweep"],
        "postgres": ["/var/lib/postgresql/data", "/run/postgresql"],
        "prometheus": ["/prometheus"],
        "grafana": ["/var/lib/grafana"],
    }
    for name, places in written.items():
        volumes = [volume.split(":")[1] for volume in SERVICES[name]["volumes"] if not volume.endswith(":ro")]
        memory = [mount.split(":")[0] for mount in SERVICES[name]["tmpfs"]]
        assert set(places) <= {*volumes, *memory}, name
    assert SERVICES["sweep"]["environment"]["SWEEP_CACHE_DIR"].startswith("/work/")


@pytest.mark.parametrize("source", [".env.example", "docs/cluster.md"])
def test_the_file_of_secrets_is_written_for_its_owner_alone(source, tmp_path):
    [command] = re.findall(r"\(?(?:umask 077; )?for name in .*> \.env\)?", (ROOT / source).read_text())
    subprocess.run(["bash", "-c", f"umask 022; {command}"], cwd=tmp_path, check=True)
    path = tmp_path / ".env"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {line.split("=")[0] for line in path.read_text().split()} == set(SECRETS)
    assert all(len(line.split("=")[1]) == 64 for line in path.read_text().split())
    assert "chmod 600 .env" in (ROOT / source).read_text()


def test_no_secret_is_in_the_file():
    text = COMPOSE.read_text()
    for name in SECRETS:
        uses = re.findall(r"\$\{" + name + r"[^}]*\}", text)
        assert uses
        assert set(uses) == {"${" + name + ":?set it in .env}"}
        assert f"\n{name}=\n" in (ROOT / ".env.example").read_text()
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert (ROOT / ".dockerignore").read_text().startswith("*\n"), "secrets beside the Dockerfile would be copied"


def test_files_that_are_mounted_exist():
    mounts = [v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", [])]
    named = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    ours = [source for source in mounts if source.startswith("./")]
    assert len(ours) == 3
    assert all((ROOT / source).exists() for source in ours)
    assert set(mounts) - set(ours) == named


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_accepts_the_file(monkeypatch):
    command = ["docker-compose", "-f", str(COMPOSE), "--profile", "gpu", "--profile", "tools", "config", "--quiet"]
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    refused = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    accepted = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (accepted.returncode, accepted.stderr) == (0, "")
    shown = subprocess.run(command[:-1], capture_output=True, text=True, cwd="/", check=True)
    services = yaml.safe_load(shown.stdout)["services"]
    assert set(services) == set(SERVICES)
    assert all(service["cap_drop"] == ["ALL"] and service["read_only"] for service in services.values())


def test_the_image_is_pinned_and_does_not_run_as_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert all(pinned(base) for base in bases)
    assert [line for line in lines if line.startswith("USER ")] == ["USER sweep"]
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = {name for names in copies for name in names}
    assert "LICENSE" in copied, "the build names it"
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= allowed


def test_every_panel_of_the_dashboard_can_be_drawn():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["datasource"]["uid"] == "prometheus"
            assert panel["targets"]


def test_the_dashboard_shows_all_our_metrics_and_only_known_ones():
    named = set(re.findall(r"ray_\w+", " ".join(expressions())))
    assert named == RAY_METRICS | {f"ray_{name}" for name in GAUGES}
    [variable] = dashboard()["templating"]["list"]
    assert variable["name"] == "sweep"
    assert all('sweep=~"$sweep"' in text for text in expressions() if "ray_sweep" in text)


def test_grafana_and_prometheus_find_each_other():
    grafana = ROOT / "dashboards/grafana/provisioning"
    [source] = yaml.safe_load((grafana / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    [provider] = yaml.safe_load((grafana / "dashboards/sweeps.yml").read_text())["providers"]
    mounted = [v.split(":")[1] for v in SERVICES["grafana"]["volumes"]]
    assert any(path.startswith(provider["options"]["path"]) for path in mounted)
    [job] = yaml.safe_load((ROOT / "dashboards/prometheus/prometheus.yml").read_text())["scrape_configs"]
    [listed] = job["file_sd_configs"][0]["files"]
    # Ray links its list of nodes by its absolute path, so both must see it under the same one
    for name in ("ray-head", "prometheus"):
        assert any(v.startswith(f"ray:{Path(listed).parent}") for v in SERVICES[name]["volumes"])


def test_kuberay_examples_have_known_fields_only():
    cluster, job = yaml.safe_load_all((ROOT / "docs/kuberay.yaml").read_text())
    assert {made["apiVersion"] for made in (cluster, job)} == {"ray.io/v1"}
    assert (cluster["kind"], job["kind"]) == ("RayCluster", "RayJob")
    assert set(job["spec"]) <= JOB_FIELDS
    assert "--address auto" in job["spec"]["entrypoint"]
    for spec in (cluster["spec"], job["spec"]["rayClusterSpec"]):
        assert set(spec) <= CLUSTER_FIELDS
        assert spec["authOptions"] == {"mode": "token"}
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert set(group) <= NODE_FIELDS
            [container] = group["template"]["spec"]["containers"]
            assert pinned(container["image"])
            assert container["resources"]["requests"] == container["resources"]["limits"]
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    limits = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
