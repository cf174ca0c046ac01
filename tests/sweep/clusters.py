"""Real Ray clusters of several nodes on this machine, for tests and benchmarks of faults.

Where root may make namespaces, every node lives in a network namespace of its own (joined by a bridge), sees only its
own processes, and can be shut off from folders of the driver: two machines as far as Ray can tell. Elsewhere the
nodes are plain processes on loopback. Either way they are gone after the ``with`` block.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 90.0
STORE_BYTES = 200_000_000
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass
class Node:
    """One node: its address and the process that everything on it descends from."""

    ip: str
    process: subprocess.Popen[bytes]
    isolated: bool

    def kill(self) -> None:
        """Kill -9 the raylet and all other processes of the node at once."""
        if self.process.poll() is not None:
            return
        children = [] if self.isolated else _tree(self.process.pid)
        self.process.kill()  # where it is isolated, the kernel ends its whole process namespace with it
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """A head, the first of ``nodes``, and others."""

    folder: Path
    isolated: bool
    token: str
    hidden: tuple[Path, ...]
    port: int = 6379
    name: str = field(default_factory=lambda: f"sw{secrets.token_hex(3)}")
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        """For ``--address``, or for ``ray.init`` beside the head."""
        return f"{self.nodes[0].ip}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """For a driver: the cluster's token."""
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **quiet, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def beside_head(self, command: Sequence[str]) -> list[str]:
        """A command line that runs ``command`` on the head's machine."""
        return [*self._inside(0), *command]

    def add_node(
        self,
        cpus: int = 1,
        gpus: int = 0,
        extra: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        setup: Sequence[str] = (),
    ) -> Node:
        """Start one more node and wait until it has joined; the first becomes the head.

        Args:
            cpus: how many it says it has; gpus: likewise.
            extra: more words for ``ray start``.
            environment: more variables for the node and its workers.
            setup: shell lines that run first on a node of its own; what they mount nobody else sees.
        """
        number = len(self.nodes)
        ip = self._make_host(number)
        words = [*RAY, "start", "--block", "--disable-usage-stats", f"--node-ip-address={ip}"]
        words += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={STORE_BYTES}", *extra]
        head = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}"]
        words += [f"--address={self.address}"] if number else head
        with (self.folder / f"node{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [*self._inside(number), *self._shut_off(number, setup, words)],
                env={**self.environment, **(environment or {})},
                cwd="/",
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        node = Node(ip, process, self.isolated)
        self.nodes.append(node)
        wait_for(lambda: self._started(number), START_SECONDS, f"node {number} of the cluster to start")
        return node

    def stop(self) -> None:
        """End every node and take the network away."""
        for node in reversed(self.nodes):
            node.kill()
        if self.isolated:
            for number in range(len(self.nodes)):
                _ip(f"link del {self.name}{number}", check=False)
                _ip(f"netns del {self._namespace(number)}", check=False)
            _ip(f"link del {self.name}", check=False)

    def _started(self, number: int) -> bool:
        if self.nodes[number].process.poll() is not None:
            log = (self.folder / f"node{number}.log").read_text()
            raise AssertionError(f"node {number} ended: {log[-1500:]}")
        return "Ray runtime started." in (self.folder / f"node{number}.log").read_text()

    def _namespace(self, number: int) -> str:
        return f"{self.name}-{number}"

    def _inside(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(number)] if self.isolated else []

    def _make_host(self, number: int) -> str:
        """The node's address; where it is isolated, its network is made: a namespace with one end in the bridge."""
        if not self.isolated:
            return f"127.0.0.{number + 2}"  # Ray would replace 127.0.0.1 by an address that others can reach
        space, end, ip = self._namespace(number), f"{self.name}{number}", f"10.77.1.{number + 1}"
        if number == 0:
            _ip(f"link add {self.name} type bridge")
            _ip(f"link set {self.name} up")
        _ip(f"netns add {space}")
        _ip(f"link add {end} type veth peer name eth0 netns {space}")
        _ip(f"link set {end} master {self.name} up")
        for words in ("link set lo up", f"addr add {ip}/24 dev eth0", "link set eth0 up"):
            _ip(f"-n {space} {words}")
        return ip

    def _shut_off(self, number: int, setup: Sequence[str], words: list[str]) -> list[str]:
        """Where it is isolated: in a process namespace, and but for the head with the ``hidden`` folders empty."""
        if not self.isolated:
            return words
        lines = _hide(self.hidden) if number else []
        script = "\n".join(["set -e", *lines, *setup, f"exec {shlex.join(words)}"])
        return ["unshare", "-p", "-f", "--kill-child", "-m", "--mount-proc", "sh", "-c", script]


@contextlib.contextmanager
def cluster(
    nodes: int = 2,
    cpus: int = 1,
    gpus: int = 0,
    head_cpus: int | None = None,
    hidden: Sequence[Path] = (),
    extra: Sequence[str] = (),
) -> Iterator[Cluster]:
    """A running cluster, for the time of a ``with`` block.

    Args:
        nodes: how many, the head included.
        cpus: of each node; gpus: logical ones of each node, no device is needed.
        head_cpus: of the head; None: as the others.
        hidden: folders that are empty on all nodes but the head; only where `can_isolate`.
        extra: more words for the head's ``ray start``.
    """
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))  # short: sockets' paths have at most 107 characters
    made = Cluster(folder, can_isolate(), secrets.token_hex(32), tuple(hidden))
    made.port = made.port if made.isolated else free_port()
    try:
        made.add_node(cpus if head_cpus is None else head_cpus, gpus, extra)
        for _ in range(nodes - 1):
            made.add_node(cpus, gpus)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def can_isolate() -> bool:
    """True where this process may make network, process and mount namespaces."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        return False
    trial = subprocess.run(["unshare", "-n", "-p", "-f", "-m", "--mount-proc", "ip", "link"], capture_output=True)
    return trial.returncode == 0 and os.geteuid() == 0


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return as soon as ``condition`` holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


def _ip(words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words.split()], check=check, capture_output=True)


def _hide(hidden: Sequence[Path]) -> list[str]:
    """Shell lines that lay an empty folder over each hidden one, but leave Python and its packages visible."""
    kept = {Path(sys.prefix).resolve(), *(Path(p).resolve() for p in sys.path if p.endswith("site-packages"))}
    inside = [path for path in sorted(kept) if any(path.is_relative_to(folder) for folder in hidden)]
    lines = ["mkdir -p /run/sweep-kept", "mount -t tmpfs none /run/sweep-kept"]
    for number, path in enumerate(inside):
        lines += [f"mkdir /run/sweep-kept/{number}", f"mount --bind {path} /run/sweep-kept/{number}"]
    lines += [f"mount -t tmpfs none {folder}" for folder in hidden]
    for number, path in enumerate(inside):
        lines += [f"mkdir -p {path}", f"mount --bind /run/sweep-kept/{number} {path}"]
    return lines


def _tree(pid: int) -> list[int]:
    """The processes that descend from ``pid``, raylets before their workers' end can be noticed."""
    import ray  # noqa: F401  brings psutil
    from psutil import Process

    children = Process(pid).children(recursive=True)
    return [child.pid for child in sorted(children, key=lambda child: "raylet" not in child.name())]
