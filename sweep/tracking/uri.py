"""Where MLflow's store is: the embedded SQLite file, a server, or a database."""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from core.errors import UsageError
from sweep.errors import CREDENTIALS, TrackingError, masked
from sweep.storage.layout import ARTIFACTS, DATABASE

SERVERS = ("http", "https")
FILE = "sqlite:///"
LEFT_OUT = "…"
"""Stands in a recorded address for what is not kept of it."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def default_uri(results: Path) -> str:
    """The embedded store: a SQLite file in the folder of all sweeps."""
    return f"sqlite:///{(results / DATABASE).resolve()}"


def artifact_root(results: Path) -> str:
    """Where the embedded store's artifacts lie."""
    return (results / ARTIFACTS).resolve().as_uri()


def artifacts_of(uri: str, results: Path) -> str | None:
    """Where artifacts of new experiments lie; None where a server decides."""
    return None if uri.startswith(SERVERS) else artifact_root(results)


def check_tracking(uri: str) -> None:
    """Refuse a store that cannot be used, before anything starts.

    Raises:
        UsageError: not a kind of address that MLflow has.
        TrackingError: no MLflow server answers there, or the file is damaged.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES):
        raise UsageError(
            f"--tracking-uri {redact(uri)}: give http://HOST:PORT of an MLflow server, or a database such as"
            " sqlite:///FILE; without the option a SQLite file in the results folder is used"
        )
    if scheme in SERVERS:
        _require_health(uri)
    if uri.startswith(FILE):
        _require_sound(Path(uri.removeprefix(FILE)))


def _require_sound(path: Path) -> None:
    """Look whether a SQLite file that is there is one.

    Raises:
        TrackingError: it is not; the message says what to do.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as file:
            file.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return  # locked, or not to be read now: whoever writes it tries again
    except sqlite3.DatabaseError as error:
        raise TrackingError(
            f"{path} is damaged ({error}); delete it: every trial is in the results folder, and 'sweep sync NAME'"
            " brings a sweep back to MLflow"
        ) from None


def _require_health(uri: str) -> None:
    remedy = "start it with 'mlflow server', or leave --tracking-uri out to use a file in the results folder"
    try:
        parts = urlsplit(CREDENTIALS.sub("", uri))
        address = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/health", "", ""))
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  the scheme is checked above
            answer.read(64)
    except urllib.error.HTTPError as error:
        raise TrackingError(
            f"{redact(uri)} answers {error.code} {error.reason}: is it an MLflow server? {remedy}"
        ) from None
    except (OSError, ValueError, HTTPException) as error:
        reason = masked(str(getattr(error, "reason", error)))
        raise TrackingError(f"no MLflow server answers at {redact(uri)} ({reason}); {remedy}") from None


def uri_of(recorded: str, results: Path) -> str:
    """The address that a sweep logs to, from what it has recorded of it; a moved embedded store is found.

    Raises:
        UsageError: a user name or password was left out of the record.
    """
    if recorded.endswith(f"/{DATABASE}"):
        return default_uri(results)
    if LEFT_OUT in recorded:
        raise UsageError(f"the sweep logs to {recorded}, and passwords are not kept: give --tracking-uri once more")
    return recorded


def redact(uri: str) -> str:
    """``uri`` without user name, password and keys, for messages and files."""
    return masked(uri)
