# A small HTTP server on a plugin's own loop: GET of one path, a request for each connection. There
# is no thread, and what a client can take is bounded: how long, how many at once, how large.
#
# Owner: the plugin's thread; `close` is for `handle_stop`, when that thread is parked.

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

#: How many clients are served at a time; those beyond wait until one is done.
MAX_CLIENTS = 16
#: The largest head of a request, in bytes.
_MAX_HEAD = 16 * 1024
#: How long nobody is let in after that failed (no descriptors are left, say), in seconds.
_PAUSE = 1.0

#: Headers and body of an answer.
Answer = tuple[Mapping[str, str], bytes]


class HttpServer:
    """Answers GET requests for a path.

    Args:
        loop: The plugin's loop.
        address: Host and port to listen at; port 0: any that is free.
        path: What is served; all else is not found.
        timeout: How long a client may take to ask, and to read the answer, in seconds each.
        answer: Gives the answer; called with the request's headers, by names in lower case.
        logger: The plugin's.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(
        self,
        loop: Any,
        address: tuple[str, int],
        path: str,
        timeout: float,
        answer: Callable[[Mapping[str, str]], Awaitable[Answer]],
        logger: logging.Logger,
    ) -> None:
        self._loop = loop
        self._path = path
        self._timeout = timeout
        self._answer = answer
        self._logger = logger
        self._clients: set[socket.socket] = set()
        found = socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, _, _, _, where = found[0]
        self._listener = socket.create_server(where[:2], family=family)
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()[:2]
        #: Where it is reached.
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
        self._listen()

    def close(self) -> None:
        """Serve nobody any more; may be called twice."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            self._logger.warning("nobody is let in for %g s: %s", _PAUSE, error)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE, self._listen)
            return
        client.setblocking(False)
        self._clients.add(client)
        if len(self._clients) >= MAX_CLIENTS:
            self._loop.remove_reader(self._listener)
        self._loop.add_callback(self._serve, client)

    async def _serve(self, client: socket.socket) -> None:
        # What a client does wrong, or that it goes away, is its own matter.
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            try:
                head = await asyncio.wait_for(self._read_head(client), self._timeout)
                reply = await self._reply(head)
                await asyncio.wait_for(self._loop.sock_sendall(client, reply), self._timeout)
            finally:
                client.close()
                self._clients.discard(client)
                self._listen()

    async def _read_head(self, client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            more = await self._loop.sock_recv(client, 4096)
            head += more
            if not more or len(head) > _MAX_HEAD:
                raise ConnectionError("no request")
        return head

    async def _reply(self, head: bytes) -> bytes:
        line, _, rest = head.partition(b"\n")
        words = line.decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _encode(HTTPStatus.BAD_REQUEST)
        try:
            headers = http.client.parse_headers(io.BytesIO(rest))
        except http.client.HTTPException:
            return _encode(HTTPStatus.BAD_REQUEST)
        if words[1].partition("?")[0] != self._path:
            return _encode(HTTPStatus.NOT_FOUND, f"look at {self._path}\n".encode())
        if words[0] != "GET":
            return _encode(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})
        found, body = await self._answer({key.lower(): value for key, value in headers.items()})
        return _encode(HTTPStatus.OK, body, found)


def _encode(
    status: HTTPStatus, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    lines = {"Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode("latin-1") + body
