# The connection of a command to a host: which reply is its own.

from __future__ import annotations

from circusplug._control.client import ControlClient
from circusplug.testing import FakeCircusd


def test_what_is_no_reply_to_what_was_asked_is_passed_over(fake_circusd: FakeCircusd) -> None:
    with ControlClient(fake_circusd.endpoint) as client:
        fake_circusd.wrong_id("list", instead=False)
        assert client.ask("list")["id"] == 1
        fake_circusd.garbage("list", instead=False)
        assert client.ask("list")["id"] == 2
