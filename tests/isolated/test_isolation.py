# A plugin in a process of its own: the same promises as on a thread.

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from command import Running, plugin, write_ini
from hosts import Host
from patience import PATIENCE
from scene import here, said, wait
from troublemakers import (
    Caller,
    Fumbler,
    Mutterer,
    StuckFumbler,
    Talker,
    Troublemaker,
    Unready,
)

from circusplug import ConfigError
from circusplug._isolated import process_runner
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


# The promises of a plugin on a thread.


def test_it_is_initialised_on_a_thread_of_a_process_of_its_own(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host({"use": Talker, "name": "one"})
    init = said(circusd, "init")
    assert init["on"] == "other"
    assert init["pid"] == arbiter.plugins["one"].pid != os.getpid()


def test_handle_stop_runs_on_the_main_thread_of_its_process(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host({"use": Talker, "name": "one"})
    pid = arbiter.plugins["one"].pid
    arbiter.stop()
    stop = said(circusd, "stop")
    assert (stop["on"], stop["pid"]) == ("main", pid)
    assert arbiter.plugins["one"].state == "stopped"


def test_plugins_stop_in_reverse_order_whichever_kind_they_are(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host(
        {"use": Talker, "name": "one"},
        {"use": Talker, "name": "two", "isolate": False},
        {"use": Talker, "name": "three"},
    )
    arbiter.stop()
    stops = [item.properties for item in circusd.commands if item.properties["what"] == "stop"]
    assert [item["plugin"] for item in stops] == ["three", "two", "one"]


def test_it_calls_and_casts(host: Host, circusd: FakeCircusd) -> None:
    host({"use": Caller, "name": "one"})
    circusd.publish("web", "ask")
    assert said(circusd, "answer", cast=True)["number"] == 1


def test_its_calls_have_deadlines(host: Host, circusd: FakeCircusd) -> None:
    circusd.silence("dstats")
    host({"use": Caller, "name": "one"})
    circusd.publish("web", "wait")
    assert "dstats: no reply within 0.05 s" in said(circusd, "timeout")["error"]


def test_it_calls_and_casts_while_it_stops(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Caller, "name": "one"})
    arbiter.stop()
    assert said(circusd, "number")["number"] == 1
    circusd.wait_command("incr", cast=True, timeout=PATIENCE)


def test_its_counters_and_errors_are_shown(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Troublemaker, "name": "one"})
    circusd.publish("web", "spawned elsewhere")
    circusd.publish("web", "raise")
    status = wait(arbiter, lambda status: status.counters.errors)
    assert (status.state, status.isolated, status.connected) == ("running", True, True)
    assert (status.counters.received, status.counters.handled) == (2, 1)
    assert status.counters.calls == 1
    assert status.last_error == "handle_recv: ValueError: on purpose"
    assert arbiter.instance("one") is None


def test_an_error_of_any_length_reaches_the_host_in_short(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Troublemaker, "name": "one"})
    circusd.publish("web", "raise at length")
    error = wait(arbiter, lambda status: status.counters.errors).last_error
    assert error is not None
    assert error.endswith("...")
    assert len(error) < 3000


def test_its_counters_go_on_over_a_restart(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Talker, "name": "one"})
    circusd.publish_many(10, "web", "spawn")
    wait(arbiter, lambda status: status.counters.handled == 10)
    arbiter.restart_plugin("one")
    said(circusd, "init", count=2)  # until then the first one's subscription may still count
    circusd.wait_subscribed(1, PATIENCE)
    circusd.publish_many(5, "web", "spawn")
    status = wait(arbiter, lambda status: status.counters.handled == 15)
    assert status.counters.calls == 3  # two inits, one stop


@pytest.mark.circusd_leaves
def test_it_notices_that_circusd_is_gone_and_back(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Talker, "name": "one"})
    circusd.stop()
    wait(arbiter, lambda status: not status.connected)
    circusd.start()
    # Counted a moment after the connection shows.
    status = wait(arbiter, lambda status: status.counters.reconnects)
    assert (status.connected, status.counters.reconnects) == (True, 1)


def test_a_plugin_that_stops_itself_runs_its_handle_stop(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Troublemaker, "name": "one"})
    circusd.publish("web", "stop")
    status = wait(arbiter, lambda status: status.state == "stopped")
    assert status.pid is None
    assert said(circusd, "stop")["on"] == "main"


def test_a_plugin_that_cannot_start_may_clean_up_in_a_stop_of_its_own(
    host: Host, tmp_path: Path
) -> None:
    arbiter = host()
    spec = {"use": Unready, "name": "one", "isolate": True, "host.restart": "never"}
    arbiter.add_plugin({**spec, "directory": str(tmp_path)})
    wait(arbiter, lambda status: status.state == "failed")
    assert (tmp_path / "one").read_text() == "stopped"


def test_what_it_prints_last_is_shown_without_an_end_of_line_too(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    host({"use": Mutterer, "name": "one"}).stop()
    assert "[one] last words\n" in capfd.readouterr().out


def test_handle_stop_may_leave_by_sys_exit(
    host: Host, circusd: FakeCircusd, tmp_path: Path
) -> None:
    arbiter = host(
        {"use": Talker, "name": "one"},
        {"use": Fumbler, "name": "two", "file": str(tmp_path / "file")},
        {"use": Fumbler, "name": "three", "file": str(tmp_path / "file"), "isolate": False},
    )
    arbiter.stop()
    said(circusd, "stop", plugin="one")
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}
    assert "SystemExit: left by the side door" in str(arbiter.plugins["two"].last_error)


# Stuck plugins.


def test_the_handle_stop_of_a_stuck_plugin_runs_and_its_calls_fail_at_once(
    host: Host, circusd: FakeCircusd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For its handle_stop, after its grace.
    monkeypatch.setattr(process_runner, "_SIGNAL_WAIT", PATIENCE)
    file = tmp_path / "file"
    arbiter = host(
        {"use": Fumbler, "name": "one", "file": str(file), "host.graceful_timeout": 0.2}
        | {"use": StuckFumbler},
        stop_timeout=4 * PATIENCE,
    )
    circusd.publish("web", "hang")
    said(circusd, "hangs")
    arbiter.stop()
    assert file.read_text() == (
        "cannot send 'say': the plugin's thread is stuck and was left behind\n"
    )
    assert arbiter.plugins["one"].state == "stopped"


@pytest.mark.parametrize(("grace", "stop_timeout"), [(0.2, 4 * PATIENCE), (100, 1.0)])
def test_stuck_plugins_share_the_time_that_the_host_has(
    host: Host,
    circusd: FakeCircusd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grace: float,
    stop_timeout: float,
) -> None:
    """Were it their grace for each, the second case would take longer than a test may."""
    # What the host leaves them for a handle_stop after a signal, or once its time is over, is
    # little on a busy machine.
    if grace < 1:
        monkeypatch.setattr(process_runner, "_SIGNAL_WAIT", PATIENCE)
    else:
        monkeypatch.setattr(process_runner, "_STOP_LEAST", 1.0)
    file = tmp_path / "file"
    stuck = {"use": StuckFumbler, "host.graceful_timeout": grace, "file": str(file)}
    arbiter = host(
        {"use": Talker, "name": "first"},
        *({**stuck, "name": f"stuck {number}"} for number in range(3)),
        stop_timeout=stop_timeout,
    )
    circusd.publish("web", "hang")
    circusd.wait_command("say", what="hangs", count=3, timeout=PATIENCE)
    arbiter.stop()
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}
    assert said(circusd, "stop", plugin="first")["on"] == "main"
    if grace < 1:
        assert len(file.read_text().splitlines()) == 3  # each ran its handle_stop


# Where the class comes from.


def test_a_class_by_dotted_name_runs_isolated(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": "troublemakers.Talker", "name": "one"})
    assert said(circusd, "init")["pid"] == arbiter.plugins["one"].pid


def test_a_class_that_cannot_be_sent_is_a_failure_that_says_so(host: Host) -> None:
    class Local(Talker):
        pass

    spec = {"use": Local, "name": "one", "isolate": True, "host.restart": "never"}
    arbiter = host()
    with pytest.raises(ConfigError, match=r"its process cannot be started: .*Local"):
        arbiter.add_plugin(spec)
    arbiter.add_plugin({**spec, "active": False})
    arbiter.start_plugin("one")
    status = wait(arbiter, lambda status: status.state == "failed")
    assert "its process cannot be started" in str(status.last_error)
    assert "Local" in str(status.last_error)


def test_an_import_that_fails_in_the_process_is_a_failure_that_says_so(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host()
    spec = {"use": "troublemakers.Talkr", "name": "one", "isolate": True, "host.restart": "never"}
    with pytest.raises(ConfigError, match=r"^plugin 'one': .*did you mean 'Talker'"):
        arbiter.add_plugin(spec)
    arbiter.add_plugin({**spec, "active": False})
    arbiter.start_plugin("one")
    status = wait(arbiter, lambda status: status.state == "failed")
    assert "did you mean 'Talker'?" in str(status.last_error)


def test_a_plugin_made_for_circus_runs_isolated(host: Host, circusd: FakeCircusd) -> None:
    host({"use": "circus_like_plugins.Positional", "name": "one", "word": "hello"})
    circusd.wait_command("say", timeout=PATIENCE, cast=True, words=["init", "hello", "hello", 5.0])
    circusd.publish("web", "spawn", process_pid=12)
    circusd.wait_command("say", timeout=PATIENCE, cast=True, words=["web", "spawn", 12])


SCRIPT = """
import sys
from circusplug import Arbiter, CircusPlugin

class Here(CircusPlugin):
    def handle_init(self):
        print("init of", type(self).__module__)
    def handle_recv(self, data):
        pass
    def handle_stop(self):
        print("stopped")

print("imported as", __name__)
plugins = [{"use": USE, "isolate": True, "name": "here", "host.restart_delay": 0}]
"""
START = """
arbiter = Arbiter(plugins, sys.argv[1], sys.argv[2], exit_when_done=True)
arbiter.start()
print(arbiter.plugins["here"].last_error)
"""


def script(tmp_path: Path, circusd: FakeCircusd, use: str, start: str) -> Running:
    path = tmp_path / "hosting.py"
    path.write_text(SCRIPT.replace("USE", use) + start)
    program = [sys.executable, str(path), circusd.endpoint, circusd.pubsub_endpoint]
    return Running(tmp_path, program=program, env=here())


def test_a_script_can_host_a_class_of_its_own(tmp_path: Path, circusd: FakeCircusd) -> None:
    guarded = "if __name__ == '__main__':\n" + START.replace("\n", "\n    ")
    with script(tmp_path, circusd, "Here", guarded) as running:
        running.wait_for("[here] init of __mp_main__")
        running.signal(signal.SIGTERM)
        running.wait_for("[here] stopped")
        assert running.end() == 0
    assert running.output.count("imported as __main__") == 1


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path, circusd: FakeCircusd) -> None:
    with script(tmp_path, circusd, "Here", START) as running:
        running.wait_for("put the start below  if __name__ == '__main__':")
        running.wait_silent()
        assert running.end() == 0
    # The first start and five more; each process imported the script once, and started nothing.
    assert running.output.count("imported as __mp_main__") == 6
    assert "the script that started the host" in running.lines[-1]


def test_a_script_needs_no_guard_for_classes_of_other_modules(
    tmp_path: Path, circusd: FakeCircusd
) -> None:
    write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint)
    with script(tmp_path, circusd, "'tellers.Teller'", START) as running:
        running.wait_for("[here] here: init")
        running.signal(signal.SIGTERM)
        running.wait_for("[here] here: stop")
        assert running.end() == 0
    assert "__mp_main__" not in running.output


def test_the_command_hosts_isolated_plugins_of_a_file(tmp_path: Path, circusd: FakeCircusd) -> None:
    sections = plugin("one", isolate="true", host_graceful_timeout="2"), plugin("two")
    ini = write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, *sections)
    with Running(tmp_path, "run", ini, env=here()) as running:
        running.wait_for("[one] plugin:one: init")
        running.wait_for("plugin:two: init")
        circusd.wait_subscribed(2, PATIENCE)
        circusd.publish("web", "spawn")
        running.wait_for("[one] plugin:one: got web spawn")
        running.signal(signal.SIGTERM)
        running.wait_for("[one] plugin:one: stop")
        assert running.end() == 0


def test_options_are_never_on_a_command_line_or_in_an_environment(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host({"use": Talker, "name": "one", "password": "swordfish"})
    child = psutil.Process(arbiter.plugins["one"].pid)
    for process in (child, child.parent(), psutil.Process()):
        assert process is not None
        shown = [*process.cmdline(), *process.environ().values()]
        assert not [text for text in shown if "swordfish" in text]
