# Alert by a virtual clock: how its options and what becomes of a watcher decide what is told, when.

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bundled import die
from fixture_types import Run

from circusplug.plugins import Alert
from circusplug.plugins._message import Message
from circusplug.testing import FakeCircusd, RunningPlugin

#: After what `status` has said when a plugin has connected.
LATER = 4e9


class Box:
    """A receiver that keeps what it gets."""

    to, left = "box", 0

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def put(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def told(self) -> list[str]:
        """What was told since this was asked last: watchers and kinds."""
        found = [f"{a['watcher']} {a['kind']}" for one in self.messages for a in one.alerts]
        self.messages.clear()
        return found


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def alert(run_plugin: Run, box: Box, fake_circusd: FakeCircusd) -> Run:
    """Runs an Alert beside the watcher web."""
    fake_circusd.add_watcher("web")

    def run(**options: Any) -> RunningPlugin:
        given = {"batch": 0, "quiet": 0, "well_again": 0, "clock": "virtual", **options}
        running = run_plugin(Alert, **given)
        running.plugin._outboxes = [box]
        return running

    return run


def test_one_that_is_removed_is_never_well_again(alert: Run, box: Box) -> None:
    running = alert(well_again=100)
    die(running)
    running.publish("web", "remove")
    running.advance(1000)
    assert box.told == ["web crash"]


def test_one_that_is_stopped_is_well_so_long_after_its_start(alert: Run, box: Box) -> None:
    running = alert(well_again=100)
    die(running)
    running.publish("web", "stop", time=1.0)
    running.advance(1000)
    assert box.told == ["web crash"]
    running.publish("web", "start")
    running.advance(99)
    assert box.told == []
    running.advance(1)
    assert box.told == ["web well_again"]


def test_one_that_is_stopped_when_circusd_comes_back_is_not_well(
    alert: Run, box: Box, fake_circusd: FakeCircusd
) -> None:
    running = alert(well_again=100)
    die(running)
    running.plugin.loop.add_callback(running.plugin.cast, "stop", name="web")
    running.advance(1)
    fake_circusd.restart()
    running.advance(1000)
    assert "web well_again" not in box.told


@pytest.mark.parametrize(("kill_grace", "told"), [(2, ["web crash"]), (4, [])])
def test_for_how_long_a_signal_excuses_a_death_can_be_said(
    kill_grace: float, told: list[str], alert: Run, box: Box
) -> None:
    running = alert(kill_grace=kill_grace)
    running.publish("web", "kill", process_pid=7, time=100.0)
    die(running, 103.0)
    running.advance(1)
    assert box.told == told


def test_given_up_is_told_after_so_long(alert: Run, box: Box) -> None:
    running = alert(gave_up_after=100)
    die(running, LATER)
    running.publish("web", "stop", time=LATER + 1)
    running.advance(99)
    assert box.told == ["web crash"]
    running.advance(1)
    assert box.told == ["web gave_up"]


def test_a_stop_from_before_it_asked_for_the_states_is_no_start_that_failed(
    alert: Run, box: Box, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("off", autostart=False)
    running = alert()
    running.publish("off", "stop", time=1.0)
    running.advance(1)
    assert box.told == []
    running.publish("off", "stop", time=LATER)
    running.advance(1)
    assert box.told == ["off start_failed"]


def test_the_text_is_as_asked_for_and_what_is_well_comes_without_output(
    alert: Run, box: Box, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("no disk\n")
    fake_circusd.add_watcher("app", stdout_stream_conf={"filename": str(tmp_path / "out")})
    running = alert(text="{watcher}!{output}", well_again=100)
    die(running, watcher="app")
    running.advance(100)
    assert [message.text for message in box.messages] == ["app!    | no disk", "app!"]


def test_a_circusd_that_tells_no_options_keeps_no_alert(
    alert: Run, box: Box, fake_circusd: FakeCircusd
) -> None:
    running = alert()
    fake_circusd.reply("options", {"status": "error", "reason": "gone", "errno": 3})
    die(running)
    running.advance(1)
    assert box.told == ["web crash"]
