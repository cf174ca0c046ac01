"""Ray's start and end: a private local one by default, or a cluster that is already there."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import UsageError
from sweep.errors import ClusterError, first_line

OBJECT_STORE_SPARE = 256 * 2**20


@dataclass(frozen=True)
class ClusterRequest:
    """What a sweep asks of Ray.

    Args:
        workers: how many at once; None: one per CPU.
        gpus_per_trial: GPUs (or a fraction) for each worker.
        address: ``host:port`` of a cluster's head, ``auto`` for one on this machine, None: start a private one.
    """

    workers: int | None = None
    gpus_per_trial: float = 0.0
    address: str | None = None


def check_request(request: ClusterRequest) -> None:
    """Refuse before anything starts what can be known to fail.

    Raises:
        UsageError: a number out of bounds, or a form of address that cannot work.
        ClusterError: nobody answers at the address, or this machine has no GPU.
    """
    if request.workers is not None and request.workers < 1:
        raise UsageError(f"--workers {request.workers}: give at least 1")
    if request.gpus_per_trial < 0:
        raise UsageError(f"--gpus-per-trial {request.gpus_per_trial}: give 0 or more")
    if request.address is None:
        if request.gpus_per_trial > 0:
            _require_local_gpu(request.gpus_per_trial)
        return
    if request.address != "auto":
        _require_answer(request.address)


def _require_local_gpu(wanted: float) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ClusterError(
            f"--gpus-per-trial {wanted:g}: this machine has no usable GPU; leave the option out, or give --address"
            " of a cluster that has some"
        )


def _require_answer(address: str) -> None:
    host, separator, port = address.removeprefix("http://").rpartition(":")
    if "://" in address or not separator or not port.isdigit():
        raise UsageError(f"--address {address}: give HOST:PORT of the cluster's head (usually port 6379), or 'auto'")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            pass
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); start one there with 'ray start --head', or leave"
            " --address out to use this machine"
        ) from None


@contextlib.contextmanager
def connected(request: ClusterRequest, shared_bytes: int) -> Iterator[int]:
    """Connect to Ray for the time of a ``with`` block, and yield the number of workers to use.

    Args:
        request: what is asked for.
        shared_bytes: size of what workers share, for the private object store.

    Raises:
        ClusterError: Ray does not start, or the cluster lacks resources.
    """
    import ray

    folder = Path(tempfile.mkdtemp(prefix="sweep-"))
    try:
        if request.address is None:
            _start_private(request, folder, shared_bytes)
        else:
            _join(request.address)
        yield _workers(request)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start_private(request: ClusterRequest, folder: Path, shared_bytes: int) -> None:
    """A Ray of our own, reachable from this machine only, gone with us."""
    import ray
    from ray._private import ray_constants

    # NOTE: Linux's Ray replaces 127.0.0.1 by the machine's own address and listens to everybody; this switch, meant
    # for desktop systems, leaves it on loopback. Should it go away one day, a token still keeps others out.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(
            num_cpus=request.workers or os.cpu_count() or 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=shared_bytes + OBJECT_STORE_SPARE,
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1",
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray does not start on this machine: {error}") from error


def _join(address: str) -> None:
    import ray

    try:
        with muted():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"cannot join the Ray cluster at {address}: {first_line(error)}; check that its Ray and Python versions"
            " are this machine's, and RAY_AUTH_MODE and its token if it asks for one"
        ) from error


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keep native code off the terminal: a cluster that refuses us would fill it while Ray tries again and again."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _workers(request: ClusterRequest) -> int:
    """How many workers the cluster can hold."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = int(resources.get("CPU", 0))
    if request.gpus_per_trial > 0:
        gpus = resources.get("GPU", 0.0)
        room = min(room, int(gpus / request.gpus_per_trial + 1e-9))
        if room < 1:
            raise ClusterError(
                f"--gpus-per-trial {request.gpus_per_trial:g}: the cluster has {gpus:g} GPUs; give a smaller fraction,"
                " or leave the option out"
            )
    if room < 1:
        raise ClusterError("the cluster has no CPU for a worker; add a node with 'ray start --address'")
    return min(request.workers or room, room)
