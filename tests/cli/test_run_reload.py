# `circusplug run` that gets SIGHUP: the file is read again, code is loaded anew, and the log goes
# where the file now says.

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command import plugin, run_here, write_ini
from hosted import hosted
from patience import PATIENCE

from circusplug import HostConfig
from circusplug._cli import hosting
from circusplug.testing import FakeCircusd


def test_sighup_restarts_only_what_changed(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        sections = [plugin("changed", x=1), plugin("gone"), plugin("same")]
        with hosted(tmp_path, circusd, *sections) as command:
            command.wait_for_all(*(f"plugin:{name}: init" for name in ("changed", "gone", "same")))
            sections = [plugin("changed", x=2), plugin("new"), plugin("same")]
            write_ini(tmp_path, *ends, *sections)
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: removed gone; changed changed; added new")
            # A plugin that is slow to start is not waited for.
            command.wait_for("plugin:changed: init", 2)
            command.wait_for("plugin:new: init")
            assert command.output.count("plugin:changed: init") == 2
            assert "plugin:gone: stop" in command.output
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: nothing has changed")
            assert command.output.count("plugin:same: init") == 1
            assert "plugin:same: stop" not in command.output
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("stop\n") == 5


def test_sighup_with_a_faulty_file_changes_nothing_and_tells_why(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one")) as command:
        circusd.wait_subscribed(1, timeout=PATIENCE)
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        write_ini(tmp_path, *ends, plugin("one", host_critcal="yes"), plugin("two"))
        command.signal(signal.SIGHUP)
        line = command.wait_for("not reloaded, all stays as it was: ")
        assert "'host.critcal' is no host option (did you mean 'host.critical'?)" in line
        # Classes that cannot be started are told in the words of a check.
        sections = [plugin("one", "tellers.Telller"), plugin("two", "no.such", isolate="yes")]
        path = write_ini(tmp_path, *ends, *sections)
        problems = run_here(tmp_path, "check", path).stderr.splitlines()
        command.signal(signal.SIGHUP)
        assert len(problems) == 2
        for problem in problems:
            line = command.wait_for(problem)
            assert line.endswith(f"not reloaded, all stays as it was: {problem}\n")
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("plugin:one: got web spawn")
        path.unlink()
        command.signal(signal.SIGHUP)
        command.wait_for("circus.ini: no such file")
        command.interrupt()
        assert command.end() == 0
    assert command.output.count("init\n") == 1


def test_sighup_loads_edited_code_or_tells_why_not(tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        sections = [plugin("edited", "mine.Mine"), plugin("same")]
        (tmp_path / "mine.py").write_text("from tellers import Teller as Mine\n")
        with hosted(tmp_path, circusd, *sections) as command:
            command.wait_for_all("plugin:edited: init", "plugin:same: init")
            (tmp_path / "mine.py").write_text("from tellers import Tellers as Mine\n")
            command.signal(signal.SIGHUP)
            line = command.wait_for("not reloaded, all stays as it was: ")
            assert "[plugin:edited]: 'use' names mine.Mine, but importing mine failed: " in line
            (tmp_path / "mine.py").write_text(
                "from tellers import Teller\n"
                "class Mine(Teller):\n"
                "    def handle_init(self): self.say('new init')\n"
            )
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: restarted edited with edited code")
            command.wait_for("plugin:edited: new init")
            command.interrupt()
            assert command.end() == 0
    assert command.output.count("plugin:edited: stop") == 2
    assert command.output.count("plugin:same: stop") == 1


def test_sighup_takes_another_log_level_and_restarts_nobody(tmp_path: Path) -> None:
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, plugin("one")) as command:
        command.wait_for("plugin:one: init")
        path = tmp_path / "circus.ini"
        text = path.read_text()
        path.write_text(text.replace("[circus]", "[circus]\nlogoutput = host.log"))
        os.mkfifo(tmp_path / "host.log")  # so that its lines can be waited for
        command.signal(signal.SIGHUP)
        with open(tmp_path / "host.log") as log:
            assert any("reloaded: nothing has changed" in line for line in log)
            command.signal(signal.SIGTERM)
            assert command.end() == 0
    assert command.output.count("plugin:one: init") == 1


def test_where_the_log_goes_is_told_when_that_has_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "circusplug")
    told = hosting._LogChanges()
    changes = ({}, {}, {"loglevel": "debug"}, {"logoutput": "x"}, {"logoutput": "x"})
    for fields in changes:
        told.tell(HostConfig(**fields))
    assert [record.getMessage() for record in caplog.records] == [
        "logging debug and above to - from now on",
        "logging info and above to x from now on",
    ]
