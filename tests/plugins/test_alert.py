# Alert under the real host: what goes to the log and to a command, how a receiver that fails is
# tried again, and what is left at a stop. Its mails are in test_alert_mail.py.

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from bundled import MOMENT, Journal, die, let_pass
from circusd_real import RealCircusd, free_endpoints
from patience import PATIENCE

from circusplug import Arbiter, SpecError
from circusplug.plugins import Alert
from circusplug.plugins._delivery import CommandDelivery, DeliveryError, Receiver, deliver
from circusplug.plugins._message import Message
from circusplug.plugins._outbox import LIMIT, Outbox
from circusplug.testing import FakeCircusd, RunningPlugin

Run = Callable[..., RunningPlugin]

#: After what `status` has said when a plugin has connected.
LATER = time.time() + 10_000
DIED = "a process (pid 7) died with exit code 3"


@pytest.fixture
def alert(run_plugin: Run) -> Run:
    """Runs an Alert that tells at once, and tells nothing of what is well."""

    def run(**options: Any) -> RunningPlugin:
        return run_plugin(Alert, **{"batch": 0, "well_again": 0, **options})

    return run


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


class Inbox:
    """A command that is an alert's receiver; what it gets can be read, and it can be refused."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.refuses = path.with_suffix(".refuses")
        self._path = path
        program = (
            "import json, os, sys; "
            "env = {k: v for k, v in os.environ.items() if k.startswith('CIRCUSPLUG_')}; "
            "open(sys.argv[1], 'w').write(json.dumps([json.load(sys.stdin), env])); "
            "sys.exit(os.path.exists(sys.argv[2]))"
        )
        self.command = shlex.join([sys.executable, "-c", program, str(path), str(self.refuses)])

    def wait(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Wait for a message; gives its JSON and the variables. The command ends only then."""
        message, environment = json.loads(self._path.read_text())
        return message, environment


@pytest.mark.circusd_leaves
class TestTheLog:
    def test_it_gets_a_warning_with_the_real_name(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("My App")
        running = alert(attempts=3)
        for seconds in (0, 10, 20):
            die(running, MOMENT + seconds, "My App")
        record: Any = journal.wait(f"My App: {DIED}")
        assert (record.levelname, record.alert) == ("WARNING", "crash")
        journal.wait("My App: 3 processes died within 20 s, the last one (pid 7) with exit code 3")

    def test_only_the_watchers_and_kinds_asked_for_are_told(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(watchers="My App*, web", what="crash", attempts=1)
        for name in ("other", "webs", "My App.v1", "web"):
            die(running, watcher=name)
        journal.wait(f"my_app.v1: {DIED}")
        journal.wait(f"web: {DIED}")
        assert str(journal.messages).count("died") == 2

    def test_a_watcher_has_exit_codes_of_its_own(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("job", **{"alert.exit_codes": "3"})
        running = alert()
        die(running, watcher="job")
        die(running, watcher="other")
        journal.wait(f"other: {DIED}")
        assert "job:" not in str(journal.messages)

    def test_a_restart_that_circusd_was_asked_for_is_no_trouble(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("web", numprocesses=3)
        running = alert()
        running.plugin.call("restart", name="web")
        running.wait_handled(3 + 3 + 1 + 3 + 1)
        die(running, watcher="last")
        journal.wait(f"last: {DIED}")
        assert str(journal.messages).count("died") == 1

    def test_deaths_from_before_a_reconnection_are_forgotten(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(attempts=2, what="flapping")
        die(running)
        running.wait_handled(1)
        running.circusd.restart()
        running.wait(lambda status: status.counters.reconnects == 1)
        running.circusd.wait_subscribed()
        die(running, MOMENT + 1)
        die(running, MOMENT + 3)
        journal.wait("2 processes died within 2 s")
        assert str(journal.messages).count("died") == 1

    def test_what_was_held_back_is_told_at_the_end_of_the_quiet_time_and_then_that_all_is_well(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(quiet=1000, well_again=10_000, what="crash")
        die(running)
        journal.wait(f"web: {DIED}")
        for seconds in range(1, 4):
            die(running, MOMENT + seconds)
        running.wait_handled(4)
        let_pass(running, 1000)
        journal.wait(f"web: {DIED} (the last of 3)")
        let_pass(running, 11_000)
        assert journal.wait("web: is well again: no trouble for 10000 s").levelname == "INFO"

    def test_given_up_is_told_when_no_start_comes(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("web")
        running = alert(gave_up_after=1000)
        die(running, LATER)
        running.publish("web", "stop", time=LATER + 1)
        running.wait_handled(2)
        journal.wait(DIED)
        let_pass(running, 1000)
        journal.wait("web: was stopped after a crash, and not started again")

    def test_a_start_that_fails_and_a_hook_are_told(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("web")
        running = alert()
        running.publish("web", "hook_failure", name="after_spawn", error="no disk")
        running.publish("web", "stop", time=LATER)
        running.publish("web", "stop", time=LATER)
        journal.wait("web: its hook after_spawn failed: no disk")
        journal.wait("web: did not start")

    def test_a_watcher_that_a_new_circusd_has_started_gets_well_again(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("web")
        running = alert(well_again=1000)
        die(running)
        running.publish("web", "stop")
        journal.wait(DIED)
        running.wait_handled(2)
        fake_circusd.restart()
        running.wait(lambda status: status.counters.reconnects == 1)
        fake_circusd.wait_command("status", count=3, timeout=PATIENCE)
        running.plugin.call("numwatchers")  # what came before is read by then
        let_pass(running, 1000)
        journal.wait("web: is well again")

    def test_a_circusd_that_does_not_answer_keeps_no_alert(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        fake_circusd.add_watcher("My App")
        running = alert(quiet=0)
        die(running, watcher="My App")
        journal.wait(f"My App: {DIED}")
        fake_circusd.clear()
        fake_circusd.silence("status")
        die(running, watcher="My App")
        fake_circusd.wait_command("status", timeout=PATIENCE)
        let_pass(running, 1000)
        journal.wait(f"my_app: {DIED}")

    def test_a_circusd_that_hangs_is_asked_for_output_only_once(
        self, fake_circusd: FakeCircusd, alert: Run, journal: Journal
    ) -> None:
        running = alert(batch=1000)
        fake_circusd.silence("options")
        for name in "abc":
            fake_circusd.add_watcher(name)
            running.publish(name, "hook_failure", name="after_start", error="no")
        running.wait_handled(3)
        let_pass(running, 1000)
        fake_circusd.wait_command("options", timeout=PATIENCE)
        let_pass(running, 2000)
        for name in "abc":
            journal.wait(f"{name}: its hook after_start failed: no")
        assert [one.command for one in fake_circusd.commands].count("options") == 1


@pytest.mark.circusd_leaves
class TestPluginsOfAHost:
    def test_one_that_fails_is_told_by_the_events_of_its_host(
        self, alert: Run, journal: Journal
    ) -> None:
        (endpoint,) = free_endpoints(1)
        with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
            publisher.linger = 0
            publisher.bind(endpoint)
            running = alert(plugin_events=endpoint)
            assert publisher.poll(PATIENCE * 1000)
            assert publisher.recv() == b"\x01watcher.plugin:"
            publisher.send(b"watcher.plugin:alone")
            publisher.send_multipart([b"watcher.plugin:x.failed", b"no JSON"])
            publisher.send_multipart([b"watcher.plugin:db.failed", b'{"error": "OSError: gone"}'])
            journal.wait("plugin:db: failed, and is not started again: OSError: gone")
            running.stop()

    def test_a_real_host_s_events_are_such(self, journal: Journal, tmp_path: Path) -> None:
        class Fails(Alert):
            def handle_init(self) -> None:
                raise OSError("no way")

        control, events = free_endpoints(2)
        alert = {"use": Alert, "name": "alert", "plugin_events": events, "batch": 0}
        fails = {"use": Fails, "name": "fails", "active": "no", "host.restart": "never"}
        with (
            FakeCircusd() as circusd,
            Arbiter(
                [alert, fails],
                circusd.endpoint,
                circusd.pubsub_endpoint,
                control=control,
                control_pubsub=events,
            ) as arbiter,
        ):
            arbiter.wait(lambda plugins: plugins["alert"].state == "running")
            circusd.wait_subscribed(1, PATIENCE)
            # Nobody tells when its second subscription has arrived.
            for number in range(1000):
                arbiter.add_plugin({**fails, "name": f"fails{number}", "active": "yes"})
                try:
                    arbiter.wait(lambda _: "plugin:fails" in str(journal.messages), 0.1)
                    break
                except TimeoutError:
                    continue
        assert "failed, and is not started again: OSError: no way" in str(journal.messages)


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


@pytest.mark.circusd_leaves
class TestTryingAgain:
    def test_the_delays_grow_until_it_is_delivered(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, retry_in=1000)
        die(running)
        passed = 0
        for delay in (1000, 2000, 3600):
            inbox.wait()
            journal.wait(f"alert not sent, next try in {delay} s: command")
            passed += delay
            let_pass(running, passed)
        inbox.refuses.unlink()
        inbox.wait()
        running.wait(lambda _: not running.plugin._outboxes[0].left, PATIENCE)

    def test_the_next_message_waits_for_the_one_before(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, retry_in=1000)
        die(running, watcher="a")
        inbox.wait()
        journal.wait("next try in 1000 s")
        die(running, watcher="b")
        journal.wait(f"b: {DIED}")
        inbox.refuses.unlink()
        let_pass(running, 1000)
        watchers = [inbox.wait()[0]["alerts"][0]["watcher"] for _ in range(2)]
        assert watchers == ["a", "b"]

    def test_it_is_given_up_after_so_many_tries(
        self, alert: Run, journal: Journal, inbox: Inbox
    ) -> None:
        inbox.refuses.touch()
        running = alert(command=inbox.command, tries=2, retry_in=0.001)
        die(running)
        inbox.wait()
        inbox.wait()
        assert journal.wait("alert not sent: command").levelname == "ERROR"
        running.wait(lambda _: not running.plugin._outboxes[0].left, PATIENCE)

    def test_a_receiver_that_hangs_delays_no_event_and_its_queue_is_bounded(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(command="sleep 1000", what="crash")
        for number in range(LIMIT + 1):
            die(running, watcher=f"web{number}")
            journal.wait(f"web{number}: {DIED}")
        text = journal.wait(f"is not sent: {LIMIT} messages wait").getMessage()
        assert "web1 crashed" in text
        assert "web2 crashed" in running.plugin._outboxes[0]._messages[1].subject
        assert running.counters.handled == LIMIT + 1
        running.stop()
        journal.wait(f"command 'sleep': messages not sent: {LIMIT}")

    def test_another_receiver_does_not_wait_for_it(
        self, alert: Run, inbox: Inbox, journal: Journal
    ) -> None:
        # The mail goes nowhere: nobody listens at port 1.
        options = {"mail_to": "a@b", "smtp_host": "127.0.0.1", "smtp_port": 1, "retry_in": 1000}
        running = alert(command=inbox.command, **options)
        for name in ("a", "b"):
            die(running, watcher=name)
            assert inbox.wait()[0]["alerts"][0]["watcher"] == name
        running.stop()
        journal.wait("mail server 127.0.0.1:1: messages not sent: 2")

    def test_what_is_in_hand_at_a_stop_is_logged_and_what_was_told_is_not(
        self, alert: Run, fake_circusd: FakeCircusd, journal: Journal
    ) -> None:
        running = alert(command="true")
        die(running, watcher="a")
        journal.wait(f"a: {DIED}")
        fake_circusd.clear()
        fake_circusd.silence("status")
        die(running, watcher="b")
        fake_circusd.wait_command("status", timeout=PATIENCE)
        running.stop()
        journal.wait(f"b: {DIED}")
        journal.wait("alerts not sent, as this plugin stops: 1")

    def test_what_has_not_been_told_at_a_stop_is_logged_and_counted(
        self, alert: Run, journal: Journal
    ) -> None:
        running = alert(command="true", batch=1000)
        die(running)
        running.wait_handled(1)
        running.stop()
        journal.wait(f"web: {DIED}")
        journal.wait("alerts not sent, as this plugin stops: 1")


@pytest.mark.parametrize(
    ("retry_in", "expected"), [(1000.0, [1000, 2000, 3600, 3600]), (7200.0, [7200] * 4)]
)
def test_the_delays_have_an_upper_bound_that_is_not_less_than_the_first(
    retry_in: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays = []

    async def fail(*_: Any) -> None:
        raise DeliveryError("no")

    async def sleep(delay: float) -> None:
        delays.append(delay)

    monkeypatch.setattr("circusplug.plugins._outbox.deliver", fail)
    monkeypatch.setattr("circusplug.plugins._outbox.asyncio.sleep", sleep)
    options: Any = SimpleNamespace(retry_in=retry_in, tries=5, deadline=1.0)
    receiver = Receiver("x", lambda _: CommandDelivery(["true"], "", {}))
    outbox = Outbox(receiver, options, None, logging.getLogger("circusplug.test"))
    asyncio.run(outbox._send(Message("", "", [])))
    assert delays == expected


def test_a_test_alert_takes_no_longer_than_the_deadline() -> None:
    plugin: Any = Alert(command="sleep 1000", deadline=0.01)
    plugin.loop.close()
    told = list(Alert.send_test(plugin.options))
    assert told == [("command 'sleep'", "not done within 0.01 s")]


def test_a_real_circusd_tells_of_crashes_starts_that_fail_and_output(
    journal: Journal, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho oh no\nexit 3\n")
    program.chmod(0o755)
    late = {"cmd": str(tmp_path / "missing"), "autostart": "no"}
    crashing = {
        "cmd": str(program),
        "stdout_stream.class": "FileStream",
        "stdout_stream.filename": str(tmp_path / "out"),
    }
    command = ["sh", "-c", f"cat >> {tmp_path}/told"]
    plugin = {"use": Alert, "batch": "0", "quiet": "0.5", "attempts": "2", "command": command}
    plugin |= {"gave_up_after": "0.1"}
    with (
        RealCircusd({"My App": crashing, "late": late}) as circusd,
        Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint),
    ):
        journal.wait("My App: 2 processes died within")
        journal.wait("with exit code 3 (the last of")
        circusd.call("start", name="late", waiting=True)
        journal.wait("late: did not start")
        os.rename(program, tmp_path / "missing")  # so that circusd cannot start it any more
        journal.wait("My App: was stopped after a crash, and not started again")
    assert "    | oh no" in (tmp_path / "told").read_text()
