"""Clusters and object storage that do not answer are noticed before anything is trained or started."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from clusters import free_port

from core.errors import UsageError
from sweep.backend.cluster import check_request
from sweep.backend.reach import require_answer
from sweep.errors import ClusterError, StoreError
from sweep.storage.endpoint import require_endpoint
from sweep.storage.info import ClusterRequest
from sweep.storage.mirror import fetch

S3 = "s3://bucket/sweeps?scheme=http&endpoint_override="
GRPC = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00" + bytes(24)


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    monkeypatch.setattr("sweep.backend.reach.SECONDS", 0.5)
    monkeypatch.setattr("sweep.storage.endpoint.SECONDS", 0.5)
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def answering(request) -> Iterator[str]:
    """A port that answers whoever says something with ``request.param``, and hangs up."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):  # who asked may have heard enough
            connection.recv(1000)
            for byte in request.param:  # a byte at a time, as a network may bring it
                connection.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_cluster_that_never_answers(silent):
    with pytest.raises(ClusterError, match=rf"no Ray cluster answers at {silent} \(timed out\); start one there"):
        check_request(ClusterRequest(address=silent))


def test_a_cluster_where_nobody_listens():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=rf"no Ray cluster answers at {address} \(.*refused"):
        check_request(ClusterRequest(address=address))


@pytest.mark.parametrize(
    "answering", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00"], ids=["http", "nothing", "cut"], indirect=True
)
def test_something_else_at_the_address(answering):
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at {answering} .something else listens there"):
        require_answer(answering)


@pytest.mark.parametrize("answering", [GRPC], ids=["grpc"], indirect=True)
def test_whoever_speaks_grpc_is_left_to_ray(answering):
    require_answer(answering)


def test_a_cluster_with_certificates_is_not_greeted_without(silent, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    require_answer(silent)


def test_auto_is_what_ray_finds(silent, monkeypatch):
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", {"auto": silent}.get)
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at {silent}"):
        check_request(ClusterRequest(address="auto"))
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", {"auto": "ray://head:10001"}.get)
    with pytest.raises(UsageError, match="--address ray://head:10001: give HOST:PORT"):
        check_request(ClusterRequest(address="auto"))


def test_auto_without_any_cluster(monkeypatch):
    def nothing(address: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", nothing)
    with pytest.raises(ClusterError, match="--address auto: no Ray cluster runs on this machine; start one with"):
        check_request(ClusterRequest(address="auto"))


def test_a_storage_that_never_answers(silent):
    with pytest.raises(StoreError, match=rf"no object storage answers at {silent} \(timed out\)"):
        fetch(f"{S3}{silent}")


def test_a_storage_where_nobody_listens_hides_its_key():
    with pytest.raises(StoreError, match="no object storage answers") as error:
        fetch(f"s3://KEY:SECRET@bucket/sweeps?scheme=http&endpoint_override=127.0.0.1:{free_port()}")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    "answering", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"no HTTP\r\n\r\n"], ids=["403", "odd"], indirect=True
)
def test_a_storage_that_refuses_has_answered(answering):
    require_endpoint(f"{S3}{answering}")


@pytest.mark.parametrize("uri", ["s3://bucket/sweeps", "file:///sweeps", "s3://bucket/x?region=eu-west-1"])
def test_a_providers_own_address_is_not_asked(uri):
    require_endpoint(uri)
