# A FakeCircusd that answers late, wrongly or not at all, as a test tells it to.

from __future__ import annotations

import types

import pytest
from wire import Wire

from circusplug.testing import FakeCircusd


class TestFaults:
    def test_a_silenced_command_takes_effect_and_is_not_answered(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.silence("incr", count=1)
        wire.request("incr", name="My App.v1")
        other = wire.request("list")
        assert wire.receive()["id"] == other
        assert len(fake.pids("My App.v1")) == 3
        assert wire.call("incr", name="My App.v1")["status"] == "ok"

    def test_everything_can_be_silenced_until_the_faults_are_cleared(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.silence()
        wire.request("list")
        wire.request("status")
        fake.wait_command("status")
        fake.clear_faults()
        other = wire.request("stats")
        assert wire.receive()["id"] == other

    def test_a_held_reply_goes_out_when_it_is_released(self, fake: FakeCircusd, wire: Wire) -> None:
        hold = fake.hold("list")
        held = [wire.request("list"), wire.request("list")]
        other = wire.request("status")
        hold.wait(2)
        assert wire.receive()["id"] == other
        assert hold.count == 2
        hold.release()
        hold.release()
        assert [wire.receive()["id"] for _ in held] == held
        assert wire.call("list")["status"] == "ok"
        assert (hold.count, wire.drain()) == (0, [])

    def test_a_hold_can_be_for_one_reply_only(self, fake: FakeCircusd, wire: Wire) -> None:
        hold = fake.hold("list", count=1)
        first, second = wire.request("list"), wire.request("list")
        assert wire.receive()["id"] == second
        hold.release()
        assert wire.receive()["id"] == first

    def test_a_wait_for_a_held_reply_ends_in_vain(self, fake: FakeCircusd) -> None:
        with pytest.raises(AssertionError, match="1 replies to hold, there are 0"):
            fake.hold("list").wait(timeout=0)

    def test_a_held_reply_does_not_survive_a_restart(self, fake: FakeCircusd, wire: Wire) -> None:
        hold = fake.hold("list", count=1)
        wire.request("list")
        hold.wait()
        fake.restart()
        hold.release()
        with wire.new_dealer() as other:
            other.send(b'{"command": "status", "id": 1}')
            assert other.poll(10_000)
        assert wire.drain() == []

    def test_a_late_reply_comes_after_others(
        self, fake: FakeCircusd, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0
        clock = types.SimpleNamespace(monotonic=lambda: now)
        monkeypatch.setattr("circusplug._control.server.time", clock)
        fake.late("list", 0.05, count=1)
        late, prompt = wire.request("list"), wire.request("status")
        assert wire.receive()["id"] == prompt
        now = 0.1
        assert wire.receive()["id"] == late

    def test_a_wrong_id_comes_instead_of_the_right_one_or_before_it(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.wrong_id("list")
        call_id = wire.request("list")
        assert wire.receive()["id"] != call_id
        fake.wrong_id("list", instead=False)
        call_id = wire.request("list")
        assert wire.receive()["id"] != call_id
        assert wire.receive()["id"] == call_id
        assert wire.call_raw("list")["id"] == call_id + 1

    def test_garbage_comes_instead_of_the_reply_or_before_it(
        self, fake: FakeCircusd, wire: Wire
    ) -> None:
        fake.garbage("list")
        wire.request("list")
        assert wire.receive_frame() == b"\xff not json"
        fake.garbage(frame=b"[]", instead=False)
        call_id = wire.request("list")
        assert wire.receive_frame() == b"[]"
        assert wire.receive()["id"] == call_id

    def test_a_fault_can_be_for_some_properties_only(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.garbage("list", frame=b"spoilt", name="My App.v1")
        assert wire.call("list", name="my app.v1")["status"] == "ok"
        wire.request("list", name="My App.v1")
        assert wire.receive_frame() == b"spoilt"

    def test_a_cast_uses_up_no_fault(self, fake: FakeCircusd, wire: Wire) -> None:
        fake.garbage("list", frame=b"spoilt")
        wire.cast("list")
        wire.request("list")
        assert wire.receive_frame() == b"spoilt"
