"""What a cluster's nodes can hold, and whether trials can run on them."""

from __future__ import annotations

import importlib
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from sweep.errors import ClusterError, first_line

PROBE_SECONDS = 180.0
NEEDED = ("core.trial", "sweep.backend.worker")


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every node that is alive, the resources of each under ``Resources``."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def room(nodes: Sequence[dict[str, Any]], gpus_per_trial: float) -> int:
    """How many workers of one CPU and so many GPUs the nodes hold together; a fraction never spans two GPUs."""
    return sum(_room(node["Resources"], gpus_per_trial) for node in nodes)


def _room(resources: dict[str, float], gpus_per_trial: float) -> int:
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus_per_trial <= 0:
        return cpus
    slots = gpus * int(1 / gpus_per_trial + 1e-9) if gpus_per_trial <= 1 else gpus // int(gpus_per_trial)
    return min(cpus, slots)


def require_usable(nodes: Sequence[dict[str, Any]]) -> None:
    """Run a small task on every node that has a CPU; it imports what a trial needs.

    It costs what the first worker on a node costs anyway, since Ray keeps the process for that worker.

    Raises:
        ClusterError: a node lacks a package, has another version of torch, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(_probe)
    answers = []
    for node in nodes:
        if node["Resources"].get("CPU", 0) >= 1:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers.append((node, probe.options(scheduling_strategy=there).remote(_torch())))
    for node, answer in answers:
        try:
            problem = ray.get(answer, timeout=PROBE_SECONDS)
        except ray.exceptions.RayError as error:
            gone = node["NodeID"] not in {other["NodeID"] for other in alive_nodes()}
            problem = "" if gone else f"a task on it fails: {first_line(error)}"
        if problem:
            raise ClusterError(f"node {node['NodeManagerAddress']} of the cluster cannot run trials: {problem}")


def _probe(torch: str) -> str:
    """Runs on a node; says what stands in the way of trials, or nothing."""
    try:
        for name in NEEDED:
            importlib.import_module(name)
    except ImportError as error:
        return f"{error}; install there what pyproject.toml lists, or start the node from this project's image"
    if _torch() != torch:
        return f"its torch is {_torch()}, here it is {torch}; install the same version on both"
    return ""


def _torch() -> str:
    """Version of torch without its build (``2.9.0+cu128`` is ``2.9.0``)."""
    return version("torch").partition("+")[0]


def describe_mismatch(text: str) -> str:
    """One sentence for Ray's lines about versions that differ."""
    import ray

    theirs = dict(re.findall(r"(Ray|Python): (\S+)", text)[:2])
    return (
        f"it runs Ray {theirs.get('Ray', '?')} on Python {theirs.get('Python', '?')}, this machine Ray"
        f" {ray.__version__} on Python {platform.python_version()}; install the same versions on both"
    )
