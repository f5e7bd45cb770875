# How a fetch of HttpObserver ends that gets no answer: by its timeout, or as it is given up.

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from patience import PATIENCE

from circusplug.plugins._http_probe import HttpProbe


def probe(url: str, timeout: float = PATIENCE) -> HttpProbe:
    return HttpProbe(url, "GET", {}, timeout, ssl.create_default_context())


@pytest.mark.parametrize("scheme", ["http", "https", "http+unix"])
def test_a_server_that_says_nothing_is_left_at_the_timeout(
    scheme: str, runtime_directory: str
) -> None:
    path = Path(runtime_directory, "silent")
    with contextlib.ExitStack() as stack:
        if scheme == "http+unix":
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            stack.callback(path.unlink)
            where = quote(str(path), safe="")
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            where = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            probe(f"{scheme}://{where}/", 0.01).run()


def test_an_address_without_a_host_is_none() -> None:
    with pytest.raises(ValueError, match="'http://:1/' cannot be fetched"):
        probe("http://:1/").run()


def test_a_fetch_may_be_given_up_before_it_begins_and_while_it_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        early, waiting = probe(there), probe(there)
        early.abort()
        with pytest.raises(TimeoutError, match="given up"):
            early.run()
        listener.accept()[0].close()
        failures: list[Exception] = []

        def run() -> None:
            try:
                waiting.run()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            waiting.abort()
            thread.join(PATIENCE / 2)
            assert failures
            assert connection.recv(1) == b""
        thread.join()
