# What the options of a plugin's sockets are, by where circusd is.

from __future__ import annotations

import pytest
import zmq

from circusplug._wire.endpoints import (
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TIMEOUT,
    RECONNECT_INTERVAL,
    RECONNECT_INTERVAL_MAX,
    configure_link,
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


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5556", "tcp://localhost:1", "ipc:///x"])
def test_this_machine_is_looked_for_all_the_time(endpoint: str) -> None:
    assert options(endpoint)[2] == 0
    assert options(endpoint)[0] == 0
