# The command that gets the alerts: what it is given, and how it fails, takes too long or is killed.

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundled import Journal, die, let_pass
from fixture_types import Run
from inbox import DIED, Inbox
from patience import PATIENCE

from circusplug import SpecError
from circusplug.plugins import Alert
from circusplug.plugins._delivery import CommandDelivery, DeliveryError, deliver
from circusplug.testing import FakeCircusd


@pytest.mark.circusd_leaves
class TestTheCommand:
    def test_it_has_the_facts_in_its_environment_and_as_json(
        self, fake_circusd: FakeCircusd, alert: Run, inbox: Inbox, tmp_path: Path
    ) -> None:
        (tmp_path / "out").write_text("begun\nno disk\n")
        fake_circusd.add_watcher("My App", stdout_stream_conf={"filename": str(tmp_path / "out")})
        running = alert(command=inbox.command, subject="{summary}", output_lines=1)
        die(running, watcher="My App")
        message, environment = inbox.wait()
        assert message["subject"] == environment["CIRCUSPLUG_SUBJECT"] == "My App crashed"
        assert message["text"] == environment["CIRCUSPLUG_TEXT"]
        assert message["text"].endswith(f"My App: {DIED}\n    | no disk")
        (facts,) = message["alerts"]
        assert facts["output"] == ["no disk"]
        assert (facts["kind"], facts["pid"], facts["exit_code"]) == ("crash", 7, 3)
        assert environment["CIRCUSPLUG_WATCHER"] == "My App"
        assert environment["CIRCUSPLUG_EXIT_CODE"] == "3"

    def test_what_comes_together_is_one_message(self, alert: Run, inbox: Inbox) -> None:
        running = alert(command=inbox.command, batch=1000)
        for name in ("a", "b", "a"):
            die(running, watcher=name)
        running.wait_handled(3)
        let_pass(running, 1000)
        message, environment = inbox.wait()
        assert environment["CIRCUSPLUG_ALERTS"] == "2"
        assert [(one["watcher"], one["count"]) for one in message["alerts"]] == [("a", 2), ("b", 1)]

    def test_it_runs_without_a_shell(self, alert: Run, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        program = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
        command = [sys.executable, "-c", program, str(tmp_path / "fifo"), "$HOME; ls"]
        die(alert(command=command))
        assert (tmp_path / "fifo").read_text() == "$HOME; ls"

    def test_one_that_is_not_there_is_refused_at_the_start(self, alert: Run) -> None:
        with pytest.raises(SpecError, match="'command': there is no program 'no-such-program'"):
            alert(command="no-such-program")

    def test_one_that_takes_too_long_is_killed_with_all_its_children(
        self, alert: Run, journal: Journal, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "fifo")
        # The FIFO ends for its reader when the last of them is gone.
        command = ["sh", "-c", 'exec > "$0"; echo begun; sleep 1000 & sleep 1000; true']
        running = alert(command=[*command, str(tmp_path / "fifo")], deadline=1000, tries=1)
        die(running)
        with open(tmp_path / "fifo") as fifo:
            assert fifo.readline() == "begun\n"
            let_pass(running, 1000)
            assert fifo.read() == ""
        journal.wait("alert not sent: command 'sh': not done within 1000 s")

    def test_one_that_runs_when_the_plugin_stops_is_killed_and_counted(
        self, alert: Run, journal: Journal, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "fifo")
        command = ["sh", "-c", 'exec > "$0"; echo begun; exec sleep 1000', str(tmp_path / "fifo")]
        running = alert(command=command)
        die(running)
        with open(tmp_path / "fifo") as fifo:
            assert fifo.readline() == "begun\n"
            die(running, watcher="other")
            journal.wait(f"other: {DIED}")
            running.wait(lambda _: running.plugin._outboxes[0].left == 2, PATIENCE)
            running.stop()
            assert fifo.read() == ""
        assert journal.wait("command 'sh': messages not sent: 2").levelname == "ERROR"

    def test_what_it_prints_goes_to_standard_error(
        self, alert: Run, journal: Journal, capfd: pytest.CaptureFixture[str]
    ) -> None:
        die(alert(command="sh -c 'echo hello; exit 4'", tries=1))
        journal.wait("alert not sent: command 'sh': exit code 4")
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "hello\n")


def test_a_command_that_was_given_up_before_it_began_is_killed() -> None:
    delivery = CommandDelivery(["sleep", "1000"], "", {})
    delivery.abort()
    with pytest.raises(DeliveryError, match="exit code -9"):
        delivery.run()


def test_a_command_has_the_host_s_environment_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "x")
    CommandDelivery(["sh", "-c", 'test "$OURS" = "$GIVEN"'], "", {"GIVEN": "x"}).run()


@pytest.mark.parametrize(
    ("failure", "told"),
    [(TimeoutError("its own words"), "x: its own words"), (OSError(), "x: OSError")],
)
def test_why_a_delivery_fails_is_told(failure: OSError, told: str) -> None:
    def run() -> None:
        raise failure

    delivery: Any = SimpleNamespace(to="x", run=run, abort=lambda: None)
    with pytest.raises(DeliveryError) as caught:
        asyncio.run(deliver(delivery, PATIENCE))
    assert str(caught.value) == told


def test_a_test_alert_takes_no_longer_than_the_deadline() -> None:
    plugin: Any = Alert(command="sleep 1000", deadline=0.01)
    plugin.loop.close()
    told = list(Alert.send_test(plugin.options))
    assert told == [("command 'sleep'", "not done within 0.01 s")]
