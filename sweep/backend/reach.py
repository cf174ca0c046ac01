"""Whether a Ray cluster answers at an address, asked before a sweep trains or starts anything.

Ray itself tries for minutes where a port is open and nothing answers behind it. A cluster's head speaks gRPC, which is
HTTP/2: whoever greets it gets its settings at once, whether or not it will be let in.
"""

from __future__ import annotations

import os
import socket

from core.errors import UsageError
from sweep.errors import ClusterError

SECONDS = 10.0
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""HTTP/2's connection preface, and settings that change nothing."""
FRAME_HEAD, KIND, SETTINGS = 9, 3, 4


def require_answer(address: str) -> None:
    """Look whether a Ray cluster answers.

    Args:
        address: ``HOST:PORT``, or ``auto`` for the one that Ray finds from here.

    Raises:
        UsageError: it is of another form.
        ClusterError: there is none, nobody answers there, or somebody else does.
    """
    found = _found() if address == "auto" else address
    host, separator, port = found.removeprefix("http://").rpartition(":")
    if "://" in found or not separator or not port.isdigit():
        raise UsageError(f"--address {found}: give HOST:PORT of the cluster's head (usually port 6379), or 'auto'")
    try:
        problem = _problem(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        problem = str(error)
    if problem:
        raise ClusterError(
            f"no Ray cluster answers at {found} ({problem}); start one there with 'ray start --head', or leave"
            " --address out to use this machine"
        )


def _found() -> str:
    """What ``auto`` stands for.

    Raises:
        ClusterError: nothing.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError):
        found = None
    if not found:
        raise ClusterError(
            "--address auto: no Ray cluster runs on this machine; start one with 'ray start --head', give HOST:PORT of"
            " one elsewhere, or leave --address out to use this machine alone"
        )
    return str(found)


def _problem(host: str, port: int) -> str:
    """Why there is no Ray at the port; empty where there is one, as far as can be seen.

    Raises:
        OSError: nobody listens, or answers in time.
    """
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
            return ""  # greeted in another way, with certificates that are Ray's affair
        connection.sendall(GREETING)
        answer = b""
        while len(answer) < FRAME_HEAD and (more := connection.recv(FRAME_HEAD)):
            answer += more
    return "" if len(answer) > KIND and answer[KIND] == SETTINGS else "something else listens there"
