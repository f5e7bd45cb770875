# What becomes of the arguments of Circus's `get_arbiter`. (real_circusd/test_get_arbiter.py runs
# it.)

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from circusplug import SpecError, get_arbiter
from circusplug._host.get_arbiter import BackgroundArbiter, CircusArbiter

#: What is said for circusd, each other than it is by default.
OF_CIRCUSD: dict[str, Any] = {
    "statsd": True,
    "stats_endpoint": "tcp://127.0.0.1:7003",
    "statsd_close_outputs": True,
    "multicast_endpoint": "udp://237.219.251.97:12027",
    "stream_backend": "gevent",
    "httpd": True,
    "debug": True,
    "proc_name": "mine",
    "umask": 0o22,
}


def test_each_argument_reaches_circusd_or_the_host() -> None:
    with zmq.Context() as context:
        arbiter = get_arbiter(
            [{"name": "web", "cmd": "sleep 1"}],
            "tcp://127.0.0.1:7001",
            "tcp://127.0.0.1:7002",
            context=context,
            check_delay=2.5,
            plugins=[{"use": "m.A", "name": "a"}],
            stop_timeout=3.0,
            exit_when_done=True,
            **OF_CIRCUSD,
        )
        assert type(arbiter) is CircusArbiter
        assert arbiter._context is context
    assert arbiter._exit_when_done
    config = arbiter.config
    assert [spec.name for spec in config.plugins] == ["a"]
    assert (config.stop_timeout, config.check_delay) == (3.0, 2.5)
    ends = {"controller": "tcp://127.0.0.1:7001", "pubsub_endpoint": "tcp://127.0.0.1:7002"}
    assert (config.endpoint, config.pubsub_endpoint) == tuple(ends.values())
    assert arbiter._circusd is not None
    plan = json.loads(arbiter._circusd.text)
    assert [watcher["name"] for watcher in plan["watchers"]] == ["web"]
    assert plan["options"] == {**OF_CIRCUSD, **ends, "check_delay": 2.5}


def test_what_does_nothing_in_circus_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        get_arbiter([], name="mine", env={})
    assert caplog.messages == [
        "'env' does nothing, as in Circus; give it to a watcher",
        "'name' does nothing, as in Circus; give it to a watcher",
    ]


def test_a_server_for_ssh_is_refused_beside_watchers() -> None:
    with pytest.raises(SpecError, match="'ssh_server' leads to a circusd on another machine"):
        get_arbiter([], ssh_server="me@there")


def test_one_in_the_background_is_alive_from_its_start_to_its_end() -> None:
    arbiter = get_arbiter([], background=True)
    assert isinstance(arbiter, BackgroundArbiter)
    assert not arbiter.is_alive()
    arbiter.join()  # as there is nothing to wait for
    waited: list[float | None] = []
    keeper: Any = SimpleNamespace(join=waited.append, is_alive=lambda: not waited)
    arbiter._keeper = keeper
    assert arbiter.is_alive()
    arbiter.join(7.0)
    assert waited == [7.0]
    assert not arbiter.is_alive()
