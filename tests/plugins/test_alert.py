# Alert under the real host: what goes to the log, of watchers, of plugins and under a real circusd.
# Its command is in test_alert_command.py, its mails are in test_alert_mail.py.

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import zmq
from bundled import MOMENT, Journal, die, let_pass
from circusd_real import RealCircusd, free_endpoints
from fixture_types import Run
from inbox import DIED
from patience import PATIENCE

from circusplug import Arbiter
from circusplug.plugins import Alert
from circusplug.testing import FakeCircusd

#: After what `status` has said when a plugin has connected.
LATER = time.time() + 10_000


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
        deadline = time.monotonic() + PATIENCE
        while running.plugin._digest.next_due() == math.inf and time.monotonic() < deadline:
            running.plugin.call("numwatchers")  # until what circusd said is taken in
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
