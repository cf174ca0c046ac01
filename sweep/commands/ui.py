"""Open the MLflow UI on the results: every sweep is a run, every trial a run below it. Only this machine can see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import Namespace
from pathlib import Path

from core.errors import UsageError
from sweep.arguments import Parser
from sweep.errors import TrackingError

EXAMPLE = "sweep ui --port 5001"
HOST = "127.0.0.1"
START_SECONDS = 60.0


def add_arguments(parser: Parser) -> None:
    """The port and the folder."""
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="where it listens (5000)")
    parser.results()


def run(options: Namespace) -> int:
    """Serve until Ctrl-C.

    Raises:
        TrackingError: the port is taken, or the server does not start or ends by itself.
    """
    command = server_command(options.results, options.port)
    require_free(options.port)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    nowhere = subprocess.DEVNULL
    # its own session, so that Ctrl-C reaches us alone and we end all of its processes
    server = subprocess.Popen(  # noqa: S603  our own words
        command, env=environment, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        wait_until_up(server, options.port)
        print(f"MLflow UI on {opening(options.port)} (Ctrl-C ends it)", flush=True)
        server.wait()
        raise TrackingError("the MLflow UI ended by itself; start it again")
    except KeyboardInterrupt:
        return 0
    finally:
        end(server)


def server_command(results: Path, port: int) -> list[str]:
    """The command line of the server.

    Raises:
        TrackingError: there is nothing to show, or the store is damaged.
    """
    from sweep.storage.address import place
    from sweep.storage.layout import ARTIFACTS, DATABASE
    from sweep.tracking.uri import check_tracking, default_uri

    if not (results / DATABASE).is_file():
        raise TrackingError(
            f"there is no MLflow store in {results} yet; run a sweep first, e.g."
            f" 'sweep run digits-quick{place(results)}', or name the folder with --results"
        )
    check_tracking(default_uri(results))
    options = {
        "--backend-store-uri": default_uri(results),
        "--artifacts-destination": str((results / ARTIFACTS).resolve()),
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def require_free(port: int) -> None:
    """Check that the port can be used.

    Raises:
        TrackingError: it is in use, or this user may not listen on it.
        UsageError: it is not from 1 to 65535.
    """
    if not 1 <= port <= 65535:
        raise UsageError(f"--port {port}: give a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise TrackingError(
                f"port {port} cannot be used ({error.strerror}); give another one with --port"
            ) from None


def wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers.

    Raises:
        TrackingError: it ends before that, or takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"the MLflow UI did not start on port {port}; try another one with --port")


def opening(port: int) -> str:
    """Where the experiment that was written to last is shown; the server's root where it has none."""
    from sweep.tracking.summary import VIEW, VIEW_TAG, view_address

    home = f"http://{HOST}:{port}"
    wanted = json.dumps({"max_results": 1, "order_by": ["last_update_time DESC"]}).encode()
    request = urllib.request.Request(  # noqa: S310  our own address
        f"{home}/api/2.0/mlflow/experiments/search", wanted, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            (found,) = json.load(answer)["experiments"]
            saved = any(tag.get("key") == VIEW_TAG.format(view=VIEW) for tag in found.get("tags", ()))
            return f"{home}/{view_address(str(int(found['experiment_id'])), VIEW if saved else '')}"
    except (OSError, ValueError, KeyError, TypeError):
        return home


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its own processes."""
    if server.poll() is not None:
        return
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
