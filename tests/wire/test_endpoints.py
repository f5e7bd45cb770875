# What the options of a plugin's sockets are, by where circusd is.

from __future__ import annotations

import pytest
import zmq

from circusplug._wire.endpoints import (
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TIMEOUT,
    RECONNECT_INTERVAL,
    RECONNECT_INTERVAL_MAX,
    command_socket,
    configure_link,
    connectable,
)


def options(endpoint: str) -> list[int]:
    names = zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT, zmq.RECONNECT_IVL_MAX, zmq.LINGER
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        configure_link(socket, endpoint)
        assert RECONNECT_INTERVAL <= socket.getsockopt(zmq.RECONNECT_IVL) < 2 * RECONNECT_INTERVAL
        return [socket.getsockopt(name) for name in names]


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:5556", "tcp://elsewhere:5556"])
def test_another_machine_is_asked_for_signs_of_life_and_tried_less_and_less_often(
    endpoint: str,
) -> None:
    expected = [HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, RECONNECT_INTERVAL_MAX, 0]
    assert options(endpoint) == expected


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://127.0.0.1:5556", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///x", "inproc://x"],
)
def test_this_machine_is_looked_for_all_the_time(endpoint: str) -> None:
    assert options(endpoint)[2] == 0
    assert options(endpoint)[0] == 0
    assert options(endpoint)[3] == 0


def test_plugins_knock_at_another_machine_at_different_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.randrange", lambda most: most - 1)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        configure_link(socket, "tcp://10.0.0.1:5556")
        assert socket.getsockopt(zmq.RECONNECT_IVL) == 2 * RECONNECT_INTERVAL - 1


def test_a_command_is_never_kept_for_a_circusd_that_is_away() -> None:
    with zmq.Context() as context, command_socket(context, "inproc://nobody") as socket:
        assert socket.getsockopt(zmq.IMMEDIATE) == 1
        assert socket.getsockopt(zmq.TYPE) == zmq.DEALER
        assert socket.getsockopt(zmq.LINGER) == 0


@pytest.mark.parametrize(
    ("bound", "connected"),
    [
        ("tcp://*:5555", "tcp://127.0.0.1:5555"),
        ("tcp://0.0.0.0:5555", "tcp://127.0.0.1:5555"),
        ("tcp://10.0.0.1:5555", "tcp://10.0.0.1:5555"),
        ("ipc:///run/x*:1", "ipc:///run/x*:1"),
    ],
)
def test_all_interfaces_are_reached_on_this_machine(bound: str, connected: str) -> None:
    assert connectable(bound) == connected
