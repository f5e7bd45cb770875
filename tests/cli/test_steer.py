# The commands that look at a host and steer it, as a user types them: what they print, and the exit
# status that a script relies on.

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from circusd_real import free_endpoints
from command import Running, environment, plugin, signals_as_before, write_ini
from patience import PATIENCE, wait_while
from stopped import stopped

from circusplug._cli import main, steer
from circusplug._control import client as control_client
from circusplug._control import places
from circusplug._control.client import ControlClient
from circusplug._errors import HostError
from circusplug.testing import FakeCircusd

TWO = (plugin("a"), plugin("b", isolate="true"))
THREADS = (plugin("a"), plugin("b"))


class Scene:
    """A directory in which commands are typed, and a runtime directory of its own."""

    def __init__(self, directory: Path, runtime: str, circusd: FakeCircusd) -> None:
        self.directory = directory
        self.circusd = circusd
        self.runtime = runtime
        self.patience = PATIENCE
        self.env = environment(XDG_RUNTIME_DIR=runtime)
        # Hosts of this user that no test has started may be in /tmp.
        self.program = [
            *(sys.executable, "-c"),
            "from circusplug._cli import main; from circusplug._control import client, places; "
            f"places._WITHOUT_RUNTIME = {runtime + '/tmp'!r}; "
            f"client.REPLY_TIMEOUT = {PATIENCE}; main.run()",
        ]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; in this process, which saves most of the time."""
        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals_as_before())
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.chdir(self.directory)
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(places, "_WITHOUT_RUNTIME", self.runtime + "/tmp")
            patch.setattr(control_client, "REPLY_TIMEOUT", self.patience)
            patch.setenv("XDG_RUNTIME_DIR", self.runtime)
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(complained))
            try:
                status = main.main(arguments)
            except SystemExit as end:  # as argparse ends
                status = int(end.code or 0)
        return subprocess.CompletedProcess(
            arguments, status, printed.getvalue(), complained.getvalue()
        )

    def running(self, *arguments: str) -> Running:
        return Running(self.directory, *arguments, program=self.program, env=self.env)

    def type(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.run(*arguments)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def start(self, name: str, *sections: str) -> Running:
        """Start a host and wait until its plugins run."""
        ends = self.circusd.endpoint, self.circusd.pubsub_endpoint
        path = write_ini(self.directory, *ends, *sections, name=name)
        command = self.running("run", str(path))
        try:
            command.wait_for("hosting ")
        except BaseException:
            command.__exit__(None, None, None)
            raise
        return command

    def wait_running(self, file: str, count: int) -> None:
        wait_while(
            lambda: self.type_json("status", file, "--json").count('"state": "running"') < count
        )

    def type_json(self, *arguments: str) -> str:
        return self.run(*arguments).stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, runtime_directory: str) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(dir=runtime_directory) as runtime, FakeCircusd() as circusd:
        yield Scene(tmp_path_factory.mktemp("steer"), runtime, circusd)


@pytest.fixture
def alone(scene: Scene, runtime_directory: str) -> Iterator[Scene]:
    """The same, but with no host, and none of another test's."""
    with tempfile.TemporaryDirectory(dir=runtime_directory) as runtime:
        yield Scene(scene.directory, runtime, scene.circusd)


@pytest.fixture
def host(alone: Scene) -> Iterator[Scene]:
    """A host of two plugins, on threads, for the file ``one.ini``."""
    with alone.start("one.ini", *THREADS):
        alone.wait_running("one.ini", 2)
        yield alone


@pytest.fixture
def with_process(alone: Scene) -> Iterator[Scene]:
    """The same, but one of the plugins is isolated."""
    with alone.start("one.ini", *TWO):
        alone.wait_running("one.ini", 2)
        yield alone


# Without a host.


@pytest.mark.parametrize("command", steer.COMMANDS)
@pytest.mark.parametrize("with_file", [False, True])
def test_without_a_host_the_status_is_3_and_says_how_to_start_one(
    alone: Scene, command: str, with_file: bool
) -> None:
    names = ["a"] if command in ("start", "stop", "restart") else []
    if with_file:
        write_ini(alone.directory, *free_endpoints(2), *TWO, name="none.ini")
    done = alone.type(command, *["none.ini"] * with_file, *names, status=3)
    assert "start it with 'circusplug run none.ini'" in done.stderr or not with_file
    assert "no host of yours runs; start one with 'circusplug run FILE'" in done.stderr or with_file
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "absent.ini"], "absent.ini: no such file"),
        (["stop"], "the following arguments are required"),
        (["status", "--endpoint", "ipc:///absent"], "no host listens on ipc:///absent"),
        (["status", "--endpoint", "nonsense"], "nonsense"),
        (["status", "--endpoint", "tcp://127.0.0.1:1"], "no host listens on tcp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    alone: Scene, arguments: list[str], says: str
) -> None:
    done = alone.run(*arguments)
    assert done.returncode in (1, 2, 3)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_whose_endpoint_is_off_cannot_be_asked(alone: Scene) -> None:
    off = "[circusplug]\ncontrol = off\n"
    with alone.start("off.ini", off, plugin("a")):
        done = alone.type("status", "off.ini", status=3)
    assert "its host takes no commands ('control' is off)" in done.stderr


# With one.


def test_status_is_a_table_or_json_of_what_the_plugins_do(with_process: Scene) -> None:
    host = with_process
    lines = host.type("status", "one.ini").stdout.splitlines()
    titles = "NAME STATE RUNS ON UPTIME EVENTS ERRORS RESTARTS LAG CPU LAST ERROR"
    assert lines[0].split() == titles.split()
    assert re.match(r"a +running +thread +\d+s +0 +0 +0 +\d+ ms +\S+ %$", lines[1])
    assert re.match(r"b +running +process \d+ +\d+s +0 +0 +0 +\d+ ms +\S+ %$", lines[2])
    assert host.type("status").stdout.splitlines()[0].split() == titles.split()
    told = json.loads(host.type("status", "one.ini", "--json").stdout)
    assert list(told["plugins"]) == ["a", "b"]
    assert {"state", "uptime", "received", "conflicts", "cpu", "pid"} <= told["plugins"]["a"].keys()
    options = told["options"]
    assert options["circusd_endpoint"] == host.circusd.endpoint
    name = os.path.basename(places.endpoint_of(str(host.directory / "one.ini")))
    assert options["endpoint"].endswith("/" + name)


def test_status_fails_while_a_plugin_has_failed(alone: Scene) -> None:
    broken = plugin("broken", "tellers.Unborn", host_max_restarts=0)
    with alone.start("bad.ini", plugin("a"), broken) as command:
        command.wait_for("broken has failed for good")
        done = alone.type("status", "bad.ini", status=1)
    assert re.search(r"broken +failed +- +- .*no good", done.stdout)


def test_plugins_are_stopped_started_and_restarted(with_process: Scene) -> None:
    host = with_process
    host.type("stop", "one.ini", "a", "plugin:b")
    assert re.findall(r"stopped +-", host.type("status").stdout) == ["stopped  -"] * 2
    host.type("start", "a")
    host.type("start", "one.ini", "b")
    before = json.loads(host.type_json("status", "--json"))["plugins"]["b"]["pid"]
    host.type("restart", "plugin:*")
    after = json.loads(host.type_json("status", "--json"))["plugins"]
    assert after["b"]["pid"] not in (None, before)
    assert {each["state"] for each in after.values()} == {"running"}


def test_wrong_names_fail_with_a_suggestion_and_the_right_ones_are_done(host: Scene) -> None:
    done = host.type("stop", "one.ini", "aa", "b", "c", status=1)
    assert done.stderr.splitlines() == [
        "circusplug: aa: program plugin:aa not found (did you mean 'plugin:a'?)",
        "circusplug: c: program plugin:c not found (did you mean 'plugin:a'?)",
    ] or ("aa: program plugin:aa not found" in done.stderr)
    assert re.search(r"^b +stopped", host.type("status").stdout, re.MULTILINE)
    # A file without a name is not enough.
    done = host.type("restart", "one.ini", status=1)
    assert done.stderr == "circusplug: restart: name a plugin; 'plugin:*' is all of them\n"


def test_stack_prints_what_each_or_one_is_at(host: Scene) -> None:
    assert host.type("stack").stdout.count("waits for something to do") >= 1
    assert host.type("stack", "one.ini", "a").stdout == "a:\n  (it waits for something to do)\n"
    host.type("stop", "a")
    assert host.type("stack", "a").stdout == "a:\n  (it does not run)\n"
    assert "not found" in host.type("stack", "one.ini", "x", status=1).stderr


def test_reload_reads_the_file_again_or_says_why_not(host: Scene) -> None:
    file = host.directory / "one.ini"
    file.write_text(file.read_text() + plugin("c"))
    host.type("reload", "one.ini")
    assert re.search(r"^c +running", host.type("status").stdout, re.MULTILINE)
    file.write_text(file.read_text() + plugin("d", "tellers.Absent"))
    done = host.type("reload", status=1)
    assert "module tellers has no 'Absent'" in done.stderr
    file.write_text("[circus\n")
    assert "is no section" in host.type("reload", "one.ini", status=1).stderr
    assert "\na " in host.type("status", "one.ini").stdout  # the host has read a better one
    assert re.search(r"^c +running", host.type("status").stdout, re.MULTILINE)


def test_quit_returns_when_the_host_has_stopped_its_plugins(alone: Scene) -> None:
    with alone.start("q.ini", *TWO) as command:
        alone.wait_running("q.ini", 2)
        alone.type("quit", "q.ini")
        assert command.end() == 0
        assert "plugin:a: stop\n" in command.output
        alone.type("status", "q.ini", status=3)
        alone.type("quit", "q.ini", status=3)


def test_events_are_printed_as_they_happen_until_the_host_ends(host: Scene) -> None:
    lines = []
    with host.running("events", "one.ini") as text, host.running("events", "--json") as as_json:
        while not (_readable(text) and _readable(as_json)):  # it takes a while to be heard of
            host.type("restart", "a")
        host.type("restart", "a")
        host.type("quit")
        for events in (text, as_json):
            assert events.end() == 0
            lines += [next(one for one in events.lines if "plugin:a" in one and "reap" in one)]
            assert events.lines[-1] == "circusplug: the host has ended\n"
    line = r"\d{4}-\d\d-\d\d [0-9:]{8} plugin:a reap process_pid=\d+ exit_code=0"
    assert re.match(line, lines[0])
    told = json.loads(lines[1])
    assert (told["watcher"], told["action"], told["exit_code"]) == ("plugin:a", "reap", 0)


def _readable(command: Running) -> bool:
    stream = command._process.stdout
    return bool(select.select([stream], [], [], 0)[0])


def test_what_goes_on_and_on_ends_with_ctrl_c(host: Scene) -> None:
    with host.running("events") as events, host.running("status", "--watch") as status:
        status.wait_for("running")
        while not _readable(events):
            host.type("restart", "a")
        for command in (events, status):
            command.interrupt()
            assert command.end() == 130
            assert "Traceback" not in command.output


def test_events_that_nobody_publishes_cannot_be_followed(alone: Scene) -> None:
    with alone.start("mute.ini", "[circusplug]\ncontrol_pubsub = off\n", plugin("a")):
        done = alone.type("events", "mute.ini", status=1)
    assert "this host publishes no events; set 'control_pubsub' in its file" in done.stderr


# Which host.


def test_of_several_hosts_a_file_or_an_endpoint_tells_which(alone: Scene) -> None:
    with contextlib.ExitStack() as stack:
        for file, name in (("one.ini", "a"), ("two.ini", "b")):
            stack.enter_context(alone.start(file, plugin(name)))
            alone.wait_running(file, 1)
        done = alone.type("status", status=1)
        assert "several hosts run; give a file, or --endpoint: ipc://" in done.stderr
        assert "\na " in alone.type("status", "one.ini").stdout
        assert "\nb " in alone.type("status", "two.ini").stdout
        endpoint = next(word for word in done.stderr.split() if "/two-" in word).rstrip(",")
        assert "\nb " in alone.type("status", "--endpoint", endpoint).stdout
        alone.type("restart", "--endpoint", endpoint, "b")
        assert "not found" in alone.type("stop", "--endpoint", endpoint, "a", status=1).stderr


def test_an_endpoint_of_the_files_own_is_found_by_the_file(alone: Scene) -> None:
    (endpoint,) = free_endpoints(1)
    with alone.start("port.ini", f"[circusplug]\ncontrol = {endpoint}\n", plugin("a")):
        assert "\na " in alone.type("status", "port.ini").stdout


def test_a_host_is_found_although_its_runtime_directory_is_not_known_here(alone: Scene) -> None:
    # Started by cron, say, and looked at from a terminal.
    elsewhere = dict(alone.env)
    alone.env = {key: value for key, value in elsewhere.items() if key != "XDG_RUNTIME_DIR"}
    with alone.start("cron.ini", plugin("a")):
        alone.env = elsewhere
        assert "\na " in alone.type("status", "cron.ini").stdout
        alone.type("quit", "cron.ini")


def test_a_second_host_for_the_same_file_says_so_and_ends(host: Scene) -> None:
    done = host.type("run", "one.ini", status=1)
    assert "a host listens on ipc://" in done.stderr
    assert "for the same file; stop it first ('circusplug quit')" in done.stderr
    assert "init" not in done.stdout  # no plugin of it has started
    assert "\na " in host.type("status").stdout


def test_a_killed_hosts_socket_is_no_host_and_is_replaced(alone: Scene) -> None:
    with alone.start("one.ini", plugin("a")) as command:
        command.signal(signal.SIGKILL)
        command.wait()
    directory = Path(alone.env["XDG_RUNTIME_DIR"], "circusplug")
    assert len(list(directory.iterdir())) == 2
    alone.type("status", "one.ini", status=3)
    alone.type("status", status=3)
    with alone.start("one.ini", plugin("a")):
        assert "\na " in alone.type("status").stdout


# One that does not answer.


def test_a_host_that_stands_still_is_waited_for_and_told_of(
    host: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_client, "REPLY_TIMEOUT", 0.2)
    told = json.loads(host.type_json("status", "--json"))["options"]
    with stopped(told["pid"]):
        with (
            ControlClient(told["endpoint"]) as client,
            pytest.raises(HostError, match=r"does not answer within 0.2 s"),
        ):
            client.ask("status")
        # To a user that is a failure, and not a host that is absent.
        host.patience = 0.2
        done = host.run("status")
        host.patience = PATIENCE
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(
        r"circusplug: the host on ipc://\S+ does not answer within 0.2 s\n", done.stderr
    )
    assert "\na " in host.type("status").stdout


def test_who_waits_for_a_host_that_is_killed_hears_of_its_end(alone: Scene) -> None:
    slow = plugin("slow", "tellers.Lingers", host_graceful_timeout=100)
    long = "[circusplug]\nstop_timeout = 100\n"
    with alone.start("slow.ini", long, slow) as command:
        alone.wait_running("slow.ini", 1)
        with alone.running("quit", "slow.ini") as quitting:
            command.wait_for("plugin:slow: stopping")
            command.signal(signal.SIGKILL)
            assert quitting.end() == 3
            assert "has ended" in quitting.output
