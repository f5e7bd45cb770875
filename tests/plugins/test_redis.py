# RedisObserver: what a real Redis server tells, and what servers that are none lead to.

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundled import Journal, do, given
from fixture_types import Run
from patience import PATIENCE
from redis_real import needs_redis, redis_server

from circusplug import SpecError
from circusplug.plugins import RedisObserver
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture
def observe(
    run_plugin: Run, fake_circusd: FakeCircusd, udp: socket.socket
) -> Callable[..., RunningPlugin]:
    """Runs a RedisObserver that restarts cache, and looks only when it is told to."""
    fake_circusd.add_watcher("cache")

    def run(redis_url: str, **options: Any) -> RunningPlugin:
        given = {"restart_on_timeout": "cache", "loop_rate": 1e6, "timeout": PATIENCE, **options}
        port = udp.getsockname()[1]
        return run_plugin(RedisObserver, redis_url=redis_url, host="127.0.0.1", port=port, **given)

    return run


def look(running: RunningPlugin) -> int:
    """Have it look; returns how many restarts it has asked for."""
    do(running, running.plugin.look)
    return len(given(running, "restart"))


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/tmp") as name:
        yield Path(name)


@needs_redis
def test_figures_go_to_statsd_and_what_is_not_there_is_left_out(
    observe: Callable[..., RunningPlugin], directory: Path, udp: socket.socket
) -> None:
    with redis_server(directory) as there:
        assert look(observe(there)) == 0
    told = udp.recv(65536).decode()
    assert "circus.redis_observer.watcher.redis_stats.connected_clients:1|g" in told.split()
    assert "used_memory_rss" in told
    assert "client_longest_output_list" not in told  # Redis has none any more


@needs_redis
def test_one_that_is_gone_has_its_watcher_restarted(
    observe: Callable[..., RunningPlugin],
    directory: Path,
    udp: socket.socket,
    journal: Journal,
) -> None:
    with redis_server(directory) as there:
        running = observe(there, failures=2)
        assert look(running) == 0
        udp.recv(65536)
    assert [look(running) for _ in range(3)] == [0, 1, 1]
    journal.wait("cache: Redis: ")
    assert "redis_stats.error:1|c" in udp.recv(65536).decode()


def test_only_the_figures_asked_for_and_only_numbers_are_sent(
    observe: Callable[..., RunningPlugin], udp: socket.socket
) -> None:
    async def info() -> dict[str, Any]:
        return {"used_memory": 5, "redis_version": "7", "a b": 1.5, "keyspace_hits": 3}

    running = observe("redis://localhost", figures="used_memory, redis_version, a b")
    running.plugin._info = info
    assert look(running) == 0
    prefix = "circus.redis_observer.watcher.redis_stats"
    assert udp.recv(65536).decode().split() == [f"{prefix}.used_memory:5|g", f"{prefix}.a_b:1.5|g"]


def test_it_takes_so_many_failures_in_a_row_and_one_that_hangs_is_a_failure(
    observe: Callable[..., RunningPlugin], journal: Journal
) -> None:
    answers = iter(["none", "", "none", "refused"])

    async def info() -> dict[str, Any]:
        answer = next(answers)
        if answer == "none":
            await asyncio.Event().wait()
        if answer:
            raise OSError(answer)
        return {}

    running = observe("redis://localhost", failures=2, timeout=0.01)
    running.plugin._info = info
    assert [look(running) for _ in range(4)] == [0, 0, 0, 1]
    journal.wait("Redis: no answer")
    journal.wait("cache: Redis: refused; restart")


@needs_redis
def test_a_server_that_wants_a_password_is_a_failure(
    observe: Callable[..., RunningPlugin], directory: Path, journal: Journal
) -> None:
    with redis_server(directory, "--requirepass", "hush") as there:
        assert look(observe(there)) == 1
        journal.wait("authenticate")
    assert "hush" not in "".join(journal.messages)


@contextlib.contextmanager
def talking(*parts: bytes) -> Iterator[str]:
    """A server that says the same whatever it is asked, the last part for ever."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    for part in parts:
                        connection.sendall(part)
                    while parts and connection.sendall(parts[-1]) is None:
                        pass
                    connection.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "parts",
    [(), (b"-ERR no\r\n",), (b"rubbish\r\n",), (b"\xff\x00",), (b"$5\r\nhello\r\n",), (b":1\r\n",)],
)
def test_a_server_s_rubbish_is_a_failure_and_no_more(
    parts: tuple[bytes, ...], observe: Callable[..., RunningPlugin]
) -> None:
    with talking(*parts) as there:
        running = observe(there, timeout=0.3)
        assert look(running) in (0, 1)  # "hello" is an INFO without figures
        assert running.status.state == "running"


@pytest.mark.parametrize("url", ["http://localhost/", "redis://localhost:many/0", "localhost"])
def test_a_bad_url_is_told(url: str) -> None:
    with pytest.raises(SpecError, match=r"^'redis_url': "):
        RedisObserver(redis_url=url)


def test_without_redis_it_says_what_to_install(
    run_plugin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for start in (run_plugin, lambda use: use.check_config({})):
        with pytest.raises(SpecError, match=r"pip install 'circusplug\[redis\]'"):
            start(RedisObserver)
