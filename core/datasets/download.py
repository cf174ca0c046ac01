"""Getting files that are nowhere on this machine: always into a temporary folder first, then moved."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT = 30.0
APT_TIMEOUT = 300.0


class UnavailableError(Exception):
    """One source of a download failed; the message says why in a line."""


@contextlib.contextmanager
def staging(cache: Path) -> Iterator[Path]:
    """Give a temporary folder next to the final place, so that what is in it can be moved there at once."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
        yield Path(folder).resolve()


def quietly(download: Callable[[], object]) -> None:
    """Run a download of torchvision without its progress bars and with a time limit on each read.

    Raises:
        UnavailableError: it failed for any reason: no network, a changed address, a wrong checksum.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            download()
    except Exception as error:
        raise UnavailableError((str(error).strip().splitlines() or [type(error).__name__])[-1]) from error
    finally:
        socket.setdefaulttimeout(before)


def debian_package(package: str, folder: Path) -> None:
    """Download a Debian package and unpack it into ``folder``; needs no root and changes nothing else.

    Raises:
        UnavailableError: this is no Debian, or the package cannot be had.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UnavailableError("apt-get is not available")
    try:
        _run(["apt-get", "-qq", "download", package], folder)
    except UnavailableError:  # a machine whose package lists are empty: fetch them into a folder of our own
        lists = folder / "apt"
        (lists / "state/lists/partial").mkdir(parents=True)
        own = ["-o", f"Dir::State={lists}/state", "-o", f"Dir::Cache={lists}/cache", "-o", "APT::Sandbox::User=root"]
        _run(["apt-get", "-qq", *own, "update"], folder)
        _run(["apt-get", "-qq", *own, "download", package], folder)
    for archive in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(archive), str(folder)], folder)


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603  fixed commands, no shell
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=APT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UnavailableError(f"{command[0]}: {lines[-1]}")
