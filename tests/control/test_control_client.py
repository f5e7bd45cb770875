# The connection of a command to a host: which reply is its own.

from __future__ import annotations

import pytest

from circusplug import HostConfig
from circusplug._control import client as control_client
from circusplug._control.client import ControlClient
from circusplug._errors import HostError
from circusplug.testing import FakeCircusd


def test_what_is_no_reply_to_what_was_asked_is_passed_over(fake_circusd: FakeCircusd) -> None:
    with ControlClient(fake_circusd.endpoint) as client:
        fake_circusd.wrong_id("list", instead=False)
        assert client.ask("list")["id"] == 1
        fake_circusd.garbage("list", instead=False)
        assert client.ask("list")["id"] == 2


def test_a_person_is_not_kept_and_a_slow_stop_is_waited_for() -> None:
    assert 1 <= control_client.REPLY_TIMEOUT <= 10
    assert 3 * HostConfig().stop_timeout <= control_client.WAITING_TIMEOUT <= 600


def test_what_is_answered_when_it_is_done_may_take_longer(
    fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_client, "REPLY_TIMEOUT", 0.0)
    with ControlClient(fake_circusd.endpoint) as client:
        assert client.ask("list", waiting=True)["status"] == "ok"
        fake_circusd.silence("list")
        with pytest.raises(HostError, match="does not answer within 0 s"):
            client.ask("list")
