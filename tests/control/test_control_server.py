# The thread that serves an endpoint: what becomes of those who wait for it when it ends.

from __future__ import annotations

from concurrent.futures import Future

import pytest
import zmq
from patience import PATIENCE

from circusplug._control.server import Server
from circusplug._errors import CircusdError


class Bare(Server):
    """One that is bound nowhere."""

    def __init__(self) -> None:
        super().__init__("bare server", lambda send_back, frame: None)

    def bind_sockets(self, router: zmq.Socket[bytes], publisher: zmq.Socket[bytes]) -> None:
        pass


def test_what_a_server_that_fails_has_not_got_to_fails_at_once() -> None:
    server = Bare()
    server.open()
    posted: Future[Future[int]] = Future()

    def fail() -> None:
        posted.set_result(server.post(lambda: 7))
        raise ValueError("on purpose")

    server.run(lambda: server.call_later(0, fail))
    with pytest.raises(CircusdError, match="this bare server was closed meanwhile"):
        posted.result(PATIENCE).result(PATIENCE)
    with pytest.raises(CircusdError, match="not running"):
        server.post(lambda: 7)
    server.close()
    assert [str(error) for error in server.errors] == ["on purpose"]
