# The HTTP server of Prometheus by itself: when nobody can be let in, and clients that do nothing.

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop
from circusplug.plugins._http_server import Answer, HttpServer


class Loop:
    """Takes note of what a server asks of it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def add_reader(self, *_: Any) -> None:
        self.asked.append("listen")

    def remove_reader(self, _: Any) -> None:
        self.asked.append("pause")

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.asked.append((delay, callback))


@pytest.mark.parametrize("error", [BlockingIOError(), ConnectionAbortedError(), OSError(24, "no")])
def test_if_nobody_can_be_let_in_it_pauses_for_a_second(
    error: OSError, caplog: pytest.LogCaptureFixture
) -> None:
    def accept() -> Any:
        raise error

    logger, loop = logging.getLogger("circusplug.test"), Loop()
    server = HttpServer(loop, ("127.0.0.1", 0), "/", PATIENCE, Any, logger)  # type: ignore[arg-type]
    listener = server._listener
    fake: Any = SimpleNamespace(accept=accept, fileno=listener.fileno, close=listener.close)
    server._listener = fake
    server._accept()
    pauses = type(error) is OSError
    assert loop.asked == (["listen", "pause", (1.0, server._listen)] if pauses else ["listen"])
    assert ("nobody is let in for 1 s" in caplog.text) is pauses
    server.close()
    server._listen()  # as the timer does that comes after the end
    assert loop.asked[-1] == "pause"


def test_a_client_that_does_not_read_its_answer_is_sent_away(loop: PluginLoop) -> None:
    async def answer(headers: Mapping[str, str]) -> Answer:
        assert headers == {"accept": "X"}
        return {}, b"x" * 10_000_000

    logger = logging.getLogger("circusplug.test")
    server = HttpServer(loop, ("127.0.0.1", 0), "/", 0.05, answer, logger)
    ours, others = socket.socketpair()
    with others:
        others.sendall(b"GET / HTTP/1.1\r\nACCEPT: X\r\n\r\n")
        ours.setblocking(False)
        loop.run_until_complete(asyncio.wait_for(server._serve(ours), PATIENCE))
        assert ours.fileno() == -1
    server.close()


def test_a_client_that_nobody_came_to_serve_is_closed_with_the_server(loop: PluginLoop) -> None:
    async def answer(_: Mapping[str, str]) -> Answer:
        raise AssertionError("nobody is served")

    logger = logging.getLogger("circusplug.test")
    server = HttpServer(loop, ("127.0.0.1", 0), "/", PATIENCE, answer, logger)
    address = urlsplit(server.url).hostname, urlsplit(server.url).port
    with socket.create_connection(address, PATIENCE) as sock:  # type: ignore[arg-type]
        server._accept()
        server.close()
        assert sock.recv(1) == b""
    server.close()
