"""Ray's start and end: a private local one by default, or a cluster that is already there."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from core.errors import UsageError
from sweep.backend.nodes import alive_nodes, describe_mismatch, require_usable, room
from sweep.backend.reach import require_answer
from sweep.backend.shipping import pack_code
from sweep.errors import ClusterError, first_line
from sweep.pinned import workers_pinned
from sweep.storage.info import ClusterRequest
from sweep.storage.locks import hold

OBJECT_STORE_SPARE = 256 * 2**20
REMAINS, REMAINS_SECONDS = "sweep-ray-", 180.0


def check_request(request: ClusterRequest) -> None:
    """Refuse before anything starts what can be known to fail.

    Raises:
        UsageError: a number out of bounds, or a form of address that cannot work.
        ClusterError: nobody answers at the address, or this machine has no GPU.
    """
    if request.workers is not None and request.workers < 1:
        raise UsageError(f"--workers {request.workers}: give at least 1")
    if not 0 <= request.gpus_per_trial < math.inf:
        raise UsageError(f"--gpus-per-trial {request.gpus_per_trial}: give 0 or more")
    if request.gpus_per_trial > 1 and request.gpus_per_trial % 1:
        raise UsageError(f"--gpus-per-trial {request.gpus_per_trial:g}: above 1, give a whole number")
    if request.address is None:
        if request.gpus_per_trial > 0:
            _require_local_gpu(request.gpus_per_trial)
        return
    require_answer(request.address)


def _require_local_gpu(wanted: float) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ClusterError(
            f"--gpus-per-trial {wanted:g}: this machine has no usable GPU; leave the option out, or give --address"
            " of a cluster that has some"
        )


@contextlib.contextmanager
def connected(
    request: ClusterRequest, shared_bytes: int, code: Sequence[str] = (), tell: Callable[[str], None] | None = None
) -> Iterator[int]:
    """Connect to Ray for the time of a ``with`` block, and yield the number of workers to use.

    Args:
        request: what is asked for.
        shared_bytes: size of what workers share, for the private object store.
        code: names of the model and the dataset; the user's modules behind them are sent to a cluster's nodes.
        tell: hears, in a line of text, when a cluster has less room than was asked for, and when it loses a node.

    Raises:
        ClusterError: Ray does not start, or the cluster lacks resources or packages.
    """
    tell = tell or (lambda _: None)
    clear_remains()
    folder = Path(tempfile.mkdtemp(prefix=REMAINS))
    lock = _lock(folder)
    try:
        with _heard(tell):
            if request.address is None:
                with workers_pinned(folder):
                    _start_private(request, folder, shared_bytes)
            else:
                _join(request.address, pack_code(folder / "code", code, tell))
                require_usable(alive_nodes())
            yield _workers(request, tell)
    finally:
        _leave()
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.close()


def _leave() -> None:
    """Shut Ray down.

    # NOTE: Ray ends the whole process, with code 1, when an object reference is freed in the middle of its shutdown.
    # Our MLflow thread would do that if it happened to collect the garbage that Tune leaves, so none is left to it.
    """
    import ray

    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        gc.enable()


@contextlib.contextmanager
def _heard(tell: Callable[[str], None]) -> Iterator[None]:
    """Say in a line that a node is lost; Ray would print paragraphs about all its errors, and on stdout."""
    from ray._private import worker

    def hear(data: dict[str, Any], ignore_prefix: bool) -> None:
        if lost := re.search(r"address: (\S+) .*marked dead", " ".join(data["lines"])):
            tell(f"node {lost[1]} of the cluster is lost; what it had not finished runs again elsewhere")

    before, worker.print_to_stdstream = worker.print_to_stdstream, hear
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def clear_remains() -> None:
    """Remove the temporary folders of drivers that were killed, once their Ray has had time to end."""
    for folder in Path(tempfile.gettempdir()).glob(f"{REMAINS}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > REMAINS_SECONDS and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


def _lock(folder: Path) -> IO[str] | None:
    """Hold the folder's lock for its driver; None: somebody holds it."""
    try:
        return hold(folder / "lock")
    except OSError:
        return None


def _start_private(request: ClusterRequest, folder: Path, shared_bytes: int) -> None:
    """A Ray of our own, reachable from this machine only, gone with us.

    Raises:
        ClusterError: Ray does not start.
    """
    import ray
    from ray._private import ray_constants

    # NOTE: Linux's Ray replaces 127.0.0.1 by the machine's own address and listens to everybody; this switch, meant
    # for desktop systems, leaves it on loopback. Should it go away one day, a token still keeps others out.
    ray_constants.ENABLE_RAY_CLUSTER = False
    _read_token_anew()
    try:
        ray.init(
            "local",  # RAY_ADDRESS may name a cluster
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


def _read_token_anew() -> None:
    """Let this process know the token too (see `sweep.quiet.silence`), where Ray was imported before there was one."""
    from ray import _raylet

    raylet: Any = _raylet
    if hasattr(raylet, "AuthenticationTokenLoader"):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _join(address: str, code: Path) -> None:
    """Connect as a driver whose workers, wherever they are, import what is in ``code``.

    Raises:
        ClusterError: no cluster answers at the address, or it does not let us in.
    """
    import ray

    # a job's own working folder is where this driver runs, and `pack_code` has taken from it what workers need
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    try:
        with muted():
            ray.init(
                address=address,
                runtime_env={"working_dir": str(code)},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(f"cannot join the Ray cluster at {address}: {_why_not(error)}") from error


def _why_not(error: Exception) -> str:
    if "Version mismatch" in str(error):
        return describe_mismatch(str(error))
    return (
        f"{first_line(error).rstrip('.')}; check that RAY_AUTH_TOKEN is the cluster's, and that this machine is one of"
        " its nodes ('ray start --address' makes it one; a Ray job runs on one)"
    )


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


def _workers(request: ClusterRequest, tell: Callable[[str], None]) -> int:
    """How many workers to use: as many as were asked for on a cluster, which may grow, else as many as it can hold.

    Raises:
        ClusterError: no node has room for one, and no number was asked for.
    """
    held = room(alive_nodes(), request.gpus_per_trial)
    if request.address is not None and request.workers is not None and request.workers > held:
        tell(f"the cluster has room for {held} of {request.workers} workers now; the others start when nodes join")
        return request.workers
    if held < 1:
        what = f"a CPU and {request.gpus_per_trial:g} GPU" if request.gpus_per_trial > 0 else "a CPU"
        raise ClusterError(
            f"no node has {what} for a worker; add one with 'ray start --address', or give --workers to wait for it"
        )
    return min(request.workers or held, held)
