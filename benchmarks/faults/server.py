"""A real MLflow server that can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.faults.bed import Bed
from tests.sweep.clusters import free_port, wait_for


@dataclass
class Server:
    """An MLflow server on loopback, on a database in the bed."""

    bed: Bed
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        place = self.bed.folder
        words = ["server", "--backend-store-uri", f"sqlite:///{place}/server.db", "--artifacts-destination"]
        words += [f"{place}/artifacts", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.process = self.bed.start(*words, command=[sys.executable, "-m", "mlflow"])

        def answers() -> bool:
            try:
                return bool(urllib.request.urlopen(f"{self.uri}/health", timeout=2).read())
            except OSError:
                return False

        wait_for(answers, 120, "the MLflow server")

    def kill(self) -> None:
        """Kill -9 it and its own processes."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(bed: Bed) -> Iterator[Server]:
    """A sweep's server."""
    bed.database = bed.folder / "server.db"
    bed.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    server = Server(bed, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
