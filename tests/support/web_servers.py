# Web servers that answer as a test says, and some that do as no server should.

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Page(http.server.BaseHTTPRequestHandler):
    """Answers as the server's `answers` say, the last one for ever."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", body)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_HEAD = do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "somebody"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    answers: list[tuple[int, str]]
    asked: list[tuple[str, str, dict[str, str]]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none."""


class UnixServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


@contextlib.contextmanager
def serving(
    *answers: tuple[int, str], context: ssl.SSLContext | None = None, path: Path | None = None
) -> Iterator[Server]:
    server = UnixServer(str(path), Page) if path is not None else Server(("127.0.0.1", 0), Page)
    server.answers, server.asked = list(answers), []
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url(server: Server, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}/page"


@contextlib.contextmanager
def talking(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that says what it likes to one client."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def half(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")


def for_ever(begin: bytes, more: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(begin)
        while True:
            connection.sendall(more)

    return talk
