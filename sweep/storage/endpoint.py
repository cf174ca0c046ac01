"""Whether an object storage of one's own answers (``s3://…?endpoint_override=HOST:PORT``), before it is used.

The library behind it tries for more than a minute where a port is open and nothing answers.
"""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import parse_qs, urlsplit

from sweep.errors import StoreError, masked

SECONDS = 10.0


def require_endpoint(uri: str) -> None:
    """Ask the storage that ``uri`` names for anything; whatever it says, a refusal too, is an answer.

    Raises:
        StoreError: nobody answers.
    """
    parts = urlsplit(uri)
    asked = parse_qs(parts.query)
    host, scheme = asked.get("endpoint_override", [""])[-1], asked.get("scheme", ["https"])[-1]
    if parts.scheme != "s3" or not host:
        return  # a provider's own address, or none that knows such a thing
    scheme, _, host = host.rpartition("://") if "://" in host else (scheme, "", host)
    connect = http.client.HTTPConnection if scheme == "http" else http.client.HTTPSConnection
    try:
        connection = connect(host, timeout=SECONDS)
        try:
            connection.request("HEAD", "/")
            connection.getresponse()
        finally:
            connection.close()
    except (ssl.SSLError, http.client.HTTPException):
        return  # somebody answered; what is wrong with it, the library says better
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{masked(uri)}: no object storage answers at {host} ({error}); check endpoint_override and scheme"
        ) from None
