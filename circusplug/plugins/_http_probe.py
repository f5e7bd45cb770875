# Fetches one page, in a way that can be given up at any moment.
#
# Owner: the thread that `run` is called on; `abort` is called from another one, and touches nothing
# but the socket.

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

#: How much of a page is read, in bytes.
_MOST_READ = 1 << 20
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
#: What stands for a Unix socket in a URL: ``http+unix://%2Frun%2Fapp.sock/page``.
_UNIX = "http+unix"
SCHEMES = ("http", "https", _UNIX)
_DAY = 86400.0
_HEADERS: Mapping[str, str] = {"User-Agent": "circusplug", "Connection": "close"}


@dataclass(frozen=True)
class Answer:
    """What a server has answered.

    Attributes:
        status: The status of the last answer, after redirects.
        body: The page, or its beginning.
        seconds: How long it took.
        certificate_days: For how many days the server's certificate is valid still; None: there is
            none that was looked at.
    """

    status: int
    body: bytes
    seconds: float
    certificate_days: float | None


class HttpProbe:
    """Fetches a page once.

    Args:
        url: Where it is; of `SCHEMES`.
        method: How to ask.
        headers: What else to say, to this server only.
        timeout: How long a connection, and each part of an answer, may take, in seconds.
        context: How to check certificates.
    """

    def __init__(
        self,
        url: str,
        method: str,
        headers: Mapping[str, str],
        timeout: float,
        context: ssl.SSLContext,
    ) -> None:
        self._url = url
        self._method = method
        self._headers: Mapping[str, str] = {**_HEADERS, **headers}
        self._timeout = timeout
        self._context = context
        self._connection: http.client.HTTPConnection | None = None
        self._aborted = False

    def run(self) -> Answer:
        """Fetch it; blocks.

        Raises:
            OSError, http.client.HTTPException, ValueError: It cannot be fetched.
        """
        begun = time.monotonic()
        url, headers = self._url, self._headers
        for _ in range(_MOST_REDIRECTS + 1):
            with contextlib.closing(self._connect(url)) as connection:
                parts = urlsplit(url)
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request(self._method, target, headers=headers)
                days = _days_left(connection.sock)
                with connection.getresponse() as answer:
                    body = answer.read(_MOST_READ)
                    if answer.length and len(body) < _MOST_READ:
                        raise http.client.IncompleteRead(body, answer.length)
                    location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return Answer(answer.status, body, time.monotonic() - begun, days)
            url = urljoin(url, location)
            if urlsplit(url)[:2] != urlsplit(self._url)[:2]:
                headers = _HEADERS  # what is said to one server may be a secret to another
        raise ValueError(f"more than {_MOST_REDIRECTS} redirects")

    def abort(self) -> None:
        """End the connection, so that `run` returns; may be called at any time."""
        self._aborted = True
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"{url!r} cannot be fetched")
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self._timeout, context=self._context
            )
        elif parts.scheme == _UNIX:
            connection = _UnixConnection(unquote(parts.netloc), self._timeout)
        else:
            connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=self._timeout
            )
        self._connection = connection
        try:
            connection.connect()
            if self._aborted:
                raise TimeoutError("given up")
        except BaseException:
            connection.close()
            raise
        return connection


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _days_left(sock: Any) -> float | None:
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    if not certificate:
        return None
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _DAY
