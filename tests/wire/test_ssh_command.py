# The words that ssh is started with, and the endpoints in them.

from __future__ import annotations

import pytest
from ssh_stand_in import ENDS

from circusplug import HostError
from circusplug._wire.ssh_command import ssh_command, target
from circusplug._wire.ssh_tunnel import Tunnel


def test_ssh_is_told_never_to_ask_and_to_end_when_it_cannot_forward() -> None:
    told = ssh_command("/bin/ssh", ["--", "host"], {"/d/commands": "127.0.0.1:5555"}, "/d")
    assert told[:2] == ["/bin/sh", "-c"]
    assert told[3:7] == ["/d", "/bin/ssh", "-N", "-T"]
    assert told[-4:] == ["-L", "/d/commands:127.0.0.1:5555", "--", "host"]
    options = set(told)
    assert options >= {
        "BatchMode=yes",
        "ControlMaster=no",
        "ControlPath=none",
        "ExitOnForwardFailure=yes",
        "ServerAliveCountMax=2",
        "ServerAliveInterval=2",
        "StreamLocalBindMask=0177",
    }


@pytest.mark.parametrize(
    ("endpoint", "far"),
    [
        ("tcp://*:5555", "127.0.0.1:5555"),
        ("tcp://db:5555", "db:5555"),
        ("ipc:///run/circusd", "/run/circusd"),
    ],
)
def test_an_endpoint_is_seen_from_the_ssh_server(endpoint: str, far: str) -> None:
    assert target(endpoint) == far


@pytest.mark.parametrize("endpoint", ["ipc://relative", "inproc://x", "pgm://x:1"])
def test_an_endpoint_that_ssh_cannot_reach_is_refused(endpoint: str) -> None:
    with pytest.raises(HostError, match="cannot be tunnelled by ssh"):
        Tunnel("host", ENDS[0], endpoint)
