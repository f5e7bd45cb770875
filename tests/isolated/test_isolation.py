# A plugin in a process of its own: the same promises as on a thread, the means of a watcher,
# and that nothing it prints or logs is lost.

from __future__ import annotations

import importlib
import logging
import os
import pwd
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Running, assert_ends, environment, plugin, write_ini
from hosts import Host, hosts
from patience import PATIENCE
from troublemakers import (
    Caller,
    Fumbler,
    Printer,
    Surveyor,
    Talker,
    Troublemaker,
)

from circusplug import Arbiter, PluginSpec, PluginStatus
from circusplug._isolated import process_runner as _process
from circusplug._isolated.output_writer import OUTPUT_LIMIT
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


@pytest.fixture
def circusd() -> Iterator[FakeCircusd]:
    with FakeCircusd(["web"]) as circusd:
        yield circusd


@pytest.fixture
def host(circusd: FakeCircusd) -> Iterator[Host]:
    """Runs plugins until the test ends: isolated ones, each given as a class and its options."""
    with hosts(circusd) as start:
        yield lambda *plugins, **options: start(
            *({"isolate": True, **plugin} for plugin in plugins), **options
        )


def wait(
    arbiter: Arbiter, predicate: Callable[[PluginStatus], object], name: str = "one"
) -> PluginStatus:
    return arbiter.wait(lambda statuses: bool(predicate(statuses[name])), PATIENCE)[name]


def said(circusd: FakeCircusd, what: str, **properties: Any) -> Any:
    """Wait until a plugin has said something; returns what it said along with it."""
    return circusd.wait_command("say", timeout=PATIENCE, what=what, **properties).properties


def here() -> dict[str, str]:
    """An environment for programs that shall find what is found here."""
    return environment(PYTHONPATH=os.pathsep.join(sys.path), PYTHONUNBUFFERED="1")


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
    monkeypatch.setattr(_process, "_SIGNAL_WAIT", PATIENCE)  # for its handle_stop, after its grace
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


class StuckFumbler(Fumbler, Troublemaker):
    pass


@pytest.mark.parametrize(("grace", "stop_timeout"), [(0.2, 4 * PATIENCE), (100, 4.0)])
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
        monkeypatch.setattr(_process, "_SIGNAL_WAIT", PATIENCE)
    else:
        monkeypatch.setattr(_process, "_STOP_LEAST", 3.0)
    file = tmp_path / "file"
    stuck = {"use": StuckFumbler, "host.graceful_timeout": grace, "file": str(file)}
    arbiter = host(
        {"use": Talker, "name": "first"},
        *({**stuck, "name": f"stuck {number}"} for number in range(5)),
        stop_timeout=stop_timeout,
    )
    circusd.publish("web", "hang")
    circusd.wait_command("say", what="hangs", count=5, timeout=PATIENCE)
    arbiter.stop()
    assert {status.state for status in arbiter.plugins.values()} == {"stopped"}
    assert said(circusd, "stop", plugin="first")["on"] == "main"
    if grace < 1:
        assert len(file.read_text().splitlines()) == 5  # each ran its handle_stop


# Where the class comes from.


def test_a_class_by_dotted_name_runs_isolated(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": "troublemakers.Talker", "name": "one"})
    assert said(circusd, "init")["pid"] == arbiter.plugins["one"].pid


def test_a_class_that_cannot_be_sent_is_a_failure_that_says_so(host: Host) -> None:
    class Local(Talker):
        pass

    spec = {"use": Local, "name": "one", "isolate": True, "host.restart": "never"}
    arbiter = host()
    arbiter.add_plugin(spec)
    status = wait(arbiter, lambda status: status.state == "failed")
    assert "its process cannot be started" in str(status.last_error)
    assert "Local" in str(status.last_error)


def test_an_import_that_fails_in_the_process_is_a_failure_that_says_so(
    host: Host, circusd: FakeCircusd
) -> None:
    arbiter = host()
    arbiter.add_plugin(
        {"use": "troublemakers.Talkr", "name": "one", "isolate": True, "host.restart": "never"}
    )
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


# The means of a watcher.


def survey(host: Host, circusd: FakeCircusd, **options: Any) -> Any:
    host({"use": Surveyor, "name": "one", **options})
    return said(circusd, "surroundings")


def test_without_options_it_is_as_the_host_is(host: Host, circusd: FakeCircusd) -> None:
    found = survey(host, circusd)
    assert found["cwd"] == os.getcwd()
    assert (found["uid"], found["gid"]) == (os.getuid(), os.getgid())
    assert found["nice"] == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("prefix", ["host.", ""])
def test_working_dir(host: Host, circusd: FakeCircusd, tmp_path: Path, prefix: str) -> None:
    found = survey(host, circusd, **{f"{prefix}working_dir": str(tmp_path)})
    assert found["cwd"] == str(tmp_path)
    # Circus's own name for it still reaches the plugin, as it does there.
    assert found["config"].get("working_dir") == (None if prefix else str(tmp_path))


MODEST = """
import os
from circusplug import CircusPlugin

class Modest(CircusPlugin):
    raise_call_errors = False

    def handle_init(self):
        self.call(
            "say", what="user", ids=os.getresuid() + os.getresgid(), groups=os.getgroups(),
            home=os.environ["HOME"],
        )

    def handle_recv(self, data):
        os.kill(os.getpid(), 19)
"""


@pytest.fixture
def modest() -> Iterator[dict[str, Any]]:
    """A plugin that anybody may read, also somebody who may not read Python's own files."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        Path(directory, "modest.py").write_text(MODEST)
        yield {"use": "modest.Modest", "name": "one", "host.python_path": directory}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("prefix", ["host.", ""])
def test_uid_and_gid(host: Host, circusd: FakeCircusd, modest: dict[str, Any], prefix: str) -> None:
    nobody = pwd.getpwnam("nobody")
    host({**modest, f"{prefix}uid": "nobody", f"{prefix}gid": str(nobody.pw_gid)})
    found = said(circusd, "user")
    assert found["ids"] == [nobody.pw_uid] * 3 + [nobody.pw_gid] * 3
    assert 0 not in found["groups"]
    assert found["home"] == nobody.pw_dir


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_plugin_of_another_user_can_be_killed(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any]
) -> None:
    arbiter = host({**modest, "host.uid": "nobody", "host.graceful_timeout": 0.1})
    circusd.publish("web", "spawn")
    wait(arbiter, is_frozen)
    arbiter.stop_plugin("one")
    assert arbiter.plugins["one"].state == "stopped"


def is_frozen(status: PluginStatus) -> bool:
    return bool(psutil.Process(status.pid).status() == psutil.STATUS_STOPPED)


def test_nice_env_and_limits(host: Host, circusd: FakeCircusd) -> None:
    found = survey(
        host,
        circusd,
        **{"host.nice": "7", "host.env.COLOUR": "blue", "host.rlimit_nofile": "100"},
    )
    assert found["nice"] == 7
    assert found["env"]["COLOUR"] == "blue"
    assert found["nofile"] == [100, 100]
    assert os.environ.get("COLOUR") is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 100


def test_python_path_is_there_before_the_class_is_imported(
    host: Host, circusd: FakeCircusd, tmp_path: Path
) -> None:
    (tmp_path / "far_away.py").write_text("from troublemakers import Surveyor as Far\n")
    found = survey(host, circusd, use="far_away.Far", **{"host.python_path": str(tmp_path)})
    assert found["path"] == str(tmp_path)


def test_the_environment_is_set_before_a_class_given_as_an_object_is_imported(
    host: Host, circusd: FakeCircusd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "particular.py").write_text(
        "import os\n"
        "from troublemakers import Surveyor\n"
        "class Particular(Surveyor):\n"
        "    def handle_stop(self):\n"
        "        self.say('found', colour=colour)\n"
        "colour = os.environ.get('COLOUR')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    particular = importlib.import_module("particular")
    arbiter = host(
        {"use": particular.Particular, "name": "one", "host.env.COLOUR": "blue"},
    )
    arbiter.stop()
    assert said(circusd, "found")["colour"] == "blue"


def test_what_the_system_refuses_is_a_failure_that_says_so(host: Host) -> None:
    arbiter = host()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fifo = "/proc/nothing-can-be-made-here"
    spec = PluginSpec.from_options(
        {"use": Talker, "name": "one", "isolate": True, "host.restart": "never"}
        | {"host.stdout": fifo, "host.rlimit_nofile": hard}
    )
    arbiter.add_plugin(spec)
    status = wait(arbiter, lambda status: status.state == "failed")
    assert "its process cannot be set up: FileNotFoundError" in str(status.last_error)


def test_stop_signal_is_what_a_stuck_plugin_gets(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host(
        {"use": Troublemaker, "name": "one", "host.graceful_timeout": 0.1} | {"stop_signal": "USR1"}
    )
    circusd.publish("web", "freeze")
    wait(arbiter, is_frozen)
    arbiter.stop_plugin("one")
    assert "sending SIGUSR1" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_from_anybody_stops_it_cleanly(
    host: Host, circusd: FakeCircusd, number: signal.Signals
) -> None:
    arbiter = host({"use": Talker, "name": "one", "host.stop_signal": "USR1"})
    os.kill(arbiter.plugins["one"].pid or 0, number)
    assert said(circusd, "stop")["on"] == "main"
    wait(arbiter, lambda status: status.state == "stopped")


def test_signals_of_a_terminal_are_left_to_the_host(host: Host, circusd: FakeCircusd) -> None:
    arbiter = host({"use": Talker, "name": "one"})
    pid = arbiter.plugins["one"].pid or 0
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    circusd.publish("web", "spawn")
    assert wait(arbiter, lambda status: status.counters.handled == 1).pid == pid
    assert os.getsid(pid) == pid


# What it prints and logs.


def test_what_it_prints_appears_with_its_name_in_front(
    host: Host, circusd: FakeCircusd, capfd: pytest.CaptureFixture[str]
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    arbiter.stop()
    printed = capfd.readouterr()
    assert printed.out == (
        "[one] printed to stdout\n[one] written without a line end by a command\n[one] last words\n"
    )
    assert "[one] printed to stderr\n" in printed.err


def test_what_it_logs_reaches_the_hosts_loggers(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    pid = arbiter.plugins["one"].pid
    circusd.publish("web", "log")
    circusd.publish("web", "raise")
    wait(arbiter, lambda status: status.counters.errors == 1)
    arbiter.stop()
    records = {record.name: record for record in caplog.records if record.process == pid}
    assert records["elsewhere.deep"].getMessage() == "logged elsewhere"
    assert records["elsewhere.deep"].levelno == logging.ERROR
    assert "a warning of its own" in records["py.warnings"].getMessage()
    assert records["circusplug.plugin.one"].plugin == "one"  # type: ignore[attr-defined]
    assert "logged by its own logger" in caplog.text
    assert "last record" in caplog.text
    assert 'raise LookupError("raised on purpose")' in caplog.text


def test_a_record_that_cannot_be_formatted_does_no_harm(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "log")
    said(circusd, "done", action="log")
    assert arbiter.plugins["one"].counters.errors == 0
    arbiter.stop()
    assert "logs what cannot be shown: TypeError" in caplog.text


def test_a_record_of_any_length_is_logged_in_short(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "novel")
    said(circusd, "done", action="novel")
    arbiter.stop()
    (record,) = (record for record in caplog.records if record.name == "elsewhere")
    assert record.getMessage().startswith("begin ééé")
    assert record.getMessage().endswith("ééé end")
    assert len(record.getMessage()) < 70_000


def test_names_of_loggers_do_not_pile_up_in_the_host(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = host({"use": Printer, "name": "one"})
    circusd.publish("web", "many loggers")
    said(circusd, "done", action="many loggers")
    arbiter.stop()
    assert "a name 99" in caplog.text
    assert not [name for name in logging.Logger.manager.loggerDict if name.startswith("made.up")]


def test_stdout_and_stderr_can_go_to_files(
    host: Host, circusd: FakeCircusd, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_text("before\n")
    arbiter = host(
        {"use": Printer, "name": "one", "host.stdout": str(out), "host.stderr": str(err)}
    )
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    arbiter.stop()
    assert out.read_text() == (
        "before\nprinted to stdout\nwritten without a line end by a command\nlast words\n"
    )
    assert err.read_text() == "printed to stderr\n"
    assert "printed" not in capfd.readouterr().out


HOSTING_A_FLOOD = """
import logging
import sys
from circusplug import Arbiter
logging.getLogger("circusplug").setLevel("ERROR")  # it warns of what is slow: a busy machine is
plugin = {"use": "troublemakers.Troublemaker", "isolate": True, "name": "flood"}
plugin["flood"] = sys.argv[3]
quiet = {"use": "troublemakers.Talker", "name": "quiet"}
Arbiter([plugin, quiet], sys.argv[1], sys.argv[2]).start()
"""


def test_nobody_waits_for_a_host_whose_output_nobody_reads(
    circusd: FakeCircusd, tmp_path: Path
) -> None:
    """The pipe of its standard output is full; its errors go elsewhere."""
    arguments = [circusd.endpoint, circusd.pubsub_endpoint, str(4 * OUTPUT_LIMIT)]
    with (tmp_path / "errors").open("w+") as errors, Running(
        tmp_path,
        program=[sys.executable, "-c", HOSTING_A_FLOOD, *arguments],
        env=here(),
        stderr=errors,
    ) as running:  # fmt: skip
        circusd.wait_subscribed(2, PATIENCE)
        before = psutil.Process(running.pid).memory_info().rss
        circusd.publish("web", "flood")
        said(circusd, "flooded")
        grown = psutil.Process(running.pid).memory_info().rss - before
        assert grown < 3 * OUTPUT_LIMIT
        running.signal(signal.SIGTERM)
        said(circusd, "stop", plugin="flood")
        said(circusd, "stop", plugin="quiet")
        running._process.wait(PATIENCE)
        assert running._process.returncode == 0
        errors.seek(0)
        assert errors.read() == ""


# The end of the host.


def test_a_program_that_forgets_to_stop_its_host_leaves_nothing(
    circusd: FakeCircusd, tmp_path: Path
) -> None:
    program = tmp_path / "forgetful.py"
    program.write_text(
        "import sys\n"
        "from circusplug import Arbiter\n"
        "plugins = [{'use': 'troublemakers.Diarist', 'isolate': True, 'name': 'one',"
        " 'directory': '.'}]\n"
        "arbiter = Arbiter(plugins, *sys.argv[1:]).__enter__()\n"
        "arbiter.wait(lambda now: now['one'].state == 'running', 20)\n"
        "print('over')\n"
    )
    command = [sys.executable, str(program), circusd.endpoint, circusd.pubsub_endpoint]
    with Running(tmp_path, program=command, env=here()) as running:
        running.wait_silent()
        assert running.end() == 0
    # The plugin's process prints to its host, so that silence does not tell of its end.
    assert_ends(said(circusd, "init")["pid"])
    assert (tmp_path / "one").read_text() == "stopped"
