# What hosted plugins print and log, as whoever started the command sees it.

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from command import COMMAND, Running, environment, plugin, write_ini
from hasty import HASTY
from patience import PATIENCE

from circusplug.testing import FakeCircusd

#: Plugins that print and log; for each event the last line that they log tells so.
SOURCE = """\
import sys
import threading

from circusplug import CircusPlugin


class Chatter(CircusPlugin):
    def handle_init(self):
        print("chatter: init")

    def handle_recv(self, data):
        watcher, _, _ = self.split_data(data)
        for level in ("debug", "info", "warning"):
            getattr(self.logger, level)("%s of %s", level, watcher)
        self.logger.critical("done with %s", watcher)


class Raises(CircusPlugin):
    def handle_recv(self, data):
        raise ValueError("no use\\nfor it")


class Printer(CircusPlugin):
    def handle_init(self):
        print("two\\nlines")
        print("on", "standard error", file=sys.stderr)
        print("begun", end=" ", flush=True)

    def handle_recv(self, data):
        print("and ended")

    def handle_stop(self):
        print("last words", end="")
        helper = threading.Thread(target=lambda: print("of a helper", end=""))
        helper.start()
        helper.join()
        self.logger.info("stopped")


class Stuck(CircusPlugin):
    def handle_recv(self, data):
        print("caught in", end=" ", flush=True)
        self.logger.info("caught")
        threading.Event().wait()
"""

#: Names of plugins on threads, and of such in processes of their own.
KINDS = {"thread": "no", "process": "yes"}


def hosted(
    directory: Path,
    circusd: FakeCircusd,
    *sections: str,
    program: list[str] = COMMAND,
    **more: str,
) -> Running:
    """`circusplug run` of sections against a fake circusd."""
    (directory / "chatter.py").write_text(SOURCE)
    path = write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, *sections)
    return Running(directory, "run", path, program=program, env=environment(**more))


def publish_until(circusd: FakeCircusd, command: Running, name: str, wanted: list[str]) -> None:
    """Publish events until plugin *name* has logged such levels of one."""
    published = [f"{wanted[0]}-0"]
    while not any(logged(command.lines, name, watcher) == wanted for watcher in published):
        circusd.publish(published[-1], "spawn", process_pid=1)
        command.wait_for(f"done with {published[-1]}")  # another plugin may say so first
        published.append(f"{wanted[0]}-{len(published)}")


def logged(lines: Iterable[str], name: str, watcher: str) -> list[str]:
    """The levels that a plugin has logged of an event."""
    own = [line for line in lines if f" {name}[" in line and line.endswith(f" of {watcher}\n")]
    return [line.split()[-3] for line in own]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_each_line_that_a_plugin_prints_carries_its_name(tmp_path: Path, unbuffered: str) -> None:
    sections = [plugin(name, "chatter.Printer", isolate=KINDS[name]) for name in KINDS]
    sections.append(plugin("two"))
    with FakeCircusd() as circusd:
        command = hosted(tmp_path, circusd, *sections, PYTHONUNBUFFERED=unbuffered)
        with command:
            command.wait_for("[two] plugin:two: init")
            circusd.wait_subscribed(3, timeout=PATIENCE)
            circusd.publish("web", "spawn", process_pid=1)
            command.wait_for("and ended", 2)
            command.wait_for("[two] plugin:two: got web")
            command.signal(signal.SIGTERM)
            assert command.end() == 0
    for name in KINDS:
        printed = [line for line in command.lines if f" {name}[" not in line]
        for line in ("two", "lines", "on standard error", "begun and ended"):
            assert f"[{name}] {line}\n" in printed
    assert "[thread] last words\n" in command.lines
    # A thread that a plugin has started itself speaks for nobody.
    assert "of a helper\n" in command.lines


def test_what_a_plugin_that_is_left_behind_has_begun_to_print_is_not_lost(tmp_path: Path) -> None:
    section = plugin("one", "chatter.Stuck", host_graceful_timeout=0.1)
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, section, program=HASTY) as command:
        circusd.wait_subscribed(1, timeout=PATIENCE)
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("caught")
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    assert command.lines[-1] == "[one] caught in \n"


def test_the_one_plugin_of_circus_plugin_has_its_lines_marked(tmp_path: Path) -> None:
    (tmp_path / "chatter.py").write_text(SOURCE)
    with FakeCircusd() as circusd:
        ends = ["--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint]
        program = [*COMMAND, "plugin", *ends]
        with Running(
            tmp_path, "--config", "name:one", "chatter.Printer", program=program
        ) as command:
            assert command.wait_for("standard error") == "[one] on standard error\n"
            circusd.wait_subscribed(1, timeout=PATIENCE)
            command.interrupt()
            assert command.end() == 0


def test_a_plugin_has_a_log_level_of_its_own_and_a_reload_changes_it(tmp_path: Path) -> None:
    def sections(**levels: str) -> list[str]:
        chatters = [
            plugin(f"{name}-{kind}", "chatter.Chatter", isolate=isolate, **host)
            for kind, isolate in KINDS.items()
            for name in ("a", "b", "c")
            for host in [{"host_loglevel": levels[name]} if name in levels else {}]
        ]
        return ["[circusplug]\nlog_format = text\n", *chatters]

    first = sections(a="debug", b="warning")
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *first) as command:
        circusd.wait_subscribed(6, timeout=PATIENCE)
        circusd.publish("first", "spawn", process_pid=1)
        command.wait_for("done with first", 6)
        for kind in KINDS:
            for name, levels in {
                "a": ["debug", "info", "warning"],
                "b": ["warning"],
                "c": ["info", "warning"],
            }.items():
                assert logged(command.lines, f"{name}-{kind}", "first") == levels
        ends = (circusd.endpoint, circusd.pubsub_endpoint)
        write_ini(tmp_path, *ends, *sections(b="debug"))
        command.signal(signal.SIGHUP)
        line = command.wait_for("reloaded: ")
        for kind in KINDS:
            assert f"changed a-{kind}" in line
            assert f"changed b-{kind}" in line
            publish_until(circusd, command, f"a-{kind}", ["info", "warning"])
            publish_until(circusd, command, f"b-{kind}", ["debug", "info", "warning"])
        command.signal(signal.SIGTERM)
        assert command.end() == 0


def test_a_reload_changes_the_level_of_the_log_and_restarts_nobody(tmp_path: Path) -> None:
    sections = [plugin(name, "chatter.Chatter", isolate=KINDS[name]) for name in KINDS]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        circusd.wait_subscribed(2, timeout=PATIENCE)
        path = tmp_path / "circus.ini"
        text = path.read_text()
        for level, levels in (
            (None, ["info", "warning"]),
            ("debug", ["debug", "info", "warning"]),
            ("warning", ["warning"]),
        ):
            if level is not None:
                path.write_text(text.replace("[circus]", f"[circus]\nloglevel = {level}"))
                command.signal(signal.SIGHUP)
            for name in KINDS:
                publish_until(circusd, command, name, levels)
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    assert command.output.count("chatter: init") == 2


def test_in_a_log_of_json_a_traceback_has_a_field_of_its_own(tmp_path: Path) -> None:
    sections = ["[circusplug]\nlog_format = json\n"]
    sections += [plugin(name, "chatter.Raises", isolate=KINDS[name]) for name in KINDS]
    with FakeCircusd() as circusd, hosted(tmp_path, circusd, *sections) as command:
        circusd.wait_subscribed(2, timeout=PATIENCE)
        circusd.publish("web", "spawn", process_pid=1)
        command.wait_for("handle_recv failed", 2)
        command.signal(signal.SIGTERM)
        assert command.end() == 0
    entries = [json.loads(line) for line in command.lines if "handle_recv failed" in line]
    assert {entry["plugin"] for entry in entries} == KINDS.keys()
    for entry in entries:
        assert entry["level"] == "error"
        assert entry["message"] == "handle_recv failed: ValueError: no use for it"
        lines = entry["traceback"].splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-2:] == ["ValueError: no use", "for it"]
        assert "chatter.py" in lines[1]
