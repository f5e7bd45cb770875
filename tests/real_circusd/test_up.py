# `circusplug up`: circusd and the host start and end together, whoever ends first and however.
# A stream's end is the proof that nobody is left: the stream that the host, circusd and the
# processes between them print to, and a FIFO that watchers and isolated plugins hold open.

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zmq
from circusd_real import free_endpoints
from command import COMMAND, Fifo, Running, environment, plugin, run, write_ini
from patience import wait_while

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

#: circus itself warns of this and that.
QUIET = environment(PYTHONWARNINGS="")

#: Ends by itself, again and again, so that there are always events to come.
DYING = '[watcher:Dying One]\ncmd = sh -c "sleep 0.2; exit 3"\n'
IDLE = "[watcher:idle]\ncmd = sleep 120\n"

Up = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture
def up(tmp_path: Path) -> Up:
    """Runs `circusplug up` with a circus.ini of the given sections, in tmp_path."""

    @contextlib.contextmanager
    def start(
        *sections: str, endpoints: list[str] | None = None, program: Iterable[str] = COMMAND
    ) -> Iterator[Running]:
        path = write_ini(tmp_path, *(endpoints or free_endpoints(2)), *sections)
        with Running(tmp_path, "up", path, program=program, env=QUIET) as command:
            yield command

    return start


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with Fifo(tmp_path / "fifo") as fifo:
        yield fifo


def circusd_pid(command: Running) -> int:
    found = re.search(r"circusd runs, process (\d+)", command.wait_for("circusd runs, process"))
    assert found is not None
    return int(found[1])


def test_circusd_runs_the_watchers_and_the_host_the_plugins_even_with_standard_input_closed(
    up: Up,
) -> None:
    sections = [plugin("one"), DYING, plugin("asks", "tellers.Caller"), plugin("two", isolate=1)]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND]
    with up(*sections, program=shell) as command:
        for name in ("one", "asks", "two"):
            command.wait_for(f"plugin:{name}: got dying_one reap")
            command.wait_for(f"plugin:{name}: got dying_one spawn")
        # Plugins find themselves, too, as under Circus.
        assert "finds ['dying one', 'plugin:asks', 'plugin:one', 'plugin:two']" in command.output
        command.interrupt()
        assert command.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_plugins_first_and_circusd_after_them(
    up: Up, number: signal.Signals
) -> None:
    both = [plugin(name, "tellers.Caller", patience=20) for name in ("asks", "asks2")]
    found = "finds ['idle', 'plugin:asks', 'plugin:asks2']"
    with up("[circusplug]\nstop_timeout = 45\n", IDLE, *both) as command:
        finds = [f"plugin:{name}: {found}" for name in ("asks", "asks2")]
        command.wait_for_all(*finds, "idle started")
        command.signal(number)
        assert command.end() == 0
    assert command.output.count(f"stop, and {found}") == 2
    order = [command.wait_for(part) for part in ("all plugins are stopped", "idle stopped")]
    assert sorted(order, key=command.lines.index) == order
    assert "Traceback" not in command.output


def test_killing_circusd_stops_the_plugins_and_the_host_fails(up: Up, fifo: Fifo) -> None:
    holder = plugin("holds", "tellers.Holder", isolate="yes", fifo=fifo.path)
    with up(IDLE, plugin("asks", "tellers.Caller"), holder) as command:
        pid = circusd_pid(command)
        command.wait_for("plugin:asks: finds")
        fifo.wait_held()
        os.kill(pid, signal.SIGKILL)
        assert command.end() == 1
    assert "plugin:holds: stop" in command.output
    assert re.search(r"plugin:asks: stop, and finds Call\w+", command.output)
    assert "circusplug: circusd was killed by SIGKILL\n" in command.lines
    fifo.wait_unheld()


def told(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, env=QUIET, text=True).stdout


def test_circusctl_quit_ends_circusd_and_host_cleanly(up: Up) -> None:
    endpoints = free_endpoints(2)
    quit_it = [sys.executable, "-c", "from circus.circusctl import main; main()"]
    with up(IDLE, plugin("one"), plugin("two", isolate=1), endpoints=endpoints) as command:
        command.wait_for_all("plugin:one: init", "plugin:two: init")
        command.wait_for("idle started")
        quit_it += ["--endpoint", endpoints[0], "quit", "--waiting"]
        # It may still be busy with the start of its watchers.
        wait_while(lambda: "ok" not in told(quit_it))
        assert command.end() == 0
    assert not [line for line in command.lines if line.startswith("circusplug: ")]
    for name in ("one", "two"):
        assert f"plugin:{name}: stop\n" in command.output


def test_killing_the_host_leaves_no_circusd_no_watcher_and_no_isolated_plugin(
    up: Up, fifo: Fifo, tmp_path: Path
) -> None:
    script = tmp_path / "hold.sh"
    script.write_text(f"exec 3>{fifo.path}\necho up >&3\nexec sleep 120\n")
    watcher = f"[watcher:holds]\ncmd = sh {script}\nnumprocesses = 2\n"
    holder = plugin("isolated", "tellers.Holder", isolate="yes", fifo=fifo.path)
    with up(watcher, DYING, plugin("one"), holder) as command:
        command.wait_for("plugin:one: got dying_one reap")
        fifo.wait_held(3)
        command.signal(signal.SIGKILL)
        assert command.end() == -signal.SIGKILL
    fifo.wait_unheld()


def test_up_without_circus_says_what_to_install(tmp_path: Path) -> None:
    without = "import sys; sys.modules['circus'] = None; from circusplug._cli.main import main; "
    program = [sys.executable, "-c", without + "sys.exit(main())"]
    path = write_ini(tmp_path, *free_endpoints(2), plugin("one"))
    done = run(tmp_path, "up", path, program=program)
    assert (done.returncode, done.stdout) == (1, "")
    said = "circusplug: circusplug up needs circus itself; pip install 'circusplug[circusd]'\n"
    assert done.stderr == said


def test_an_endpoint_in_use_is_told_and_no_plugin_is_started(up: Up) -> None:
    endpoints = free_endpoints(2)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as taken:
        taken.bind(endpoints[0])
        with up(IDLE, plugin("one"), endpoints=endpoints) as command:
            assert command.end() == 1
    (line,) = [line for line in command.lines if line.startswith("circusplug: ")]
    assert line == f"circusplug: cannot listen on {endpoints[0]}: Address already in use\n"
    assert "plugin:one" not in command.output


def test_sighup_changes_the_plugins_and_leaves_circusd_alone(up: Up, tmp_path: Path) -> None:
    endpoints = free_endpoints(2)
    sections = [DYING, plugin("changed", x=1), plugin("same")]
    with up(*sections, endpoints=endpoints) as command:
        pid = circusd_pid(command)
        command.wait_for_all("plugin:changed: got", "plugin:same: got")
        # Not to where circusd would be if it were started now.
        write_ini(tmp_path, *free_endpoints(2), DYING, plugin("changed", x=2), plugin("same"))
        command.signal(signal.SIGHUP)
        command.wait_for("reloaded: changed changed")
        command.wait_for("plugin:changed: init", 2)
        seen = command.output.count("plugin:changed: got dying_one reap")
        command.wait_for("plugin:changed: got dying_one reap", seen + 1)
        assert command.output.count("plugin:same: init") == 1
        os.kill(pid, 0)
        command.interrupt()
        assert command.end() == 0


def test_sighup_has_circusd_read_what_is_its_own_if_that_has_changed(
    up: Up, tmp_path: Path
) -> None:
    endpoints = free_endpoints(4)
    with up(IDLE, plugin("one"), endpoints=endpoints[:2]) as command:
        command.wait_for("plugin:one: init")
        for ends, watchers, told in (
            (endpoints[:2], "# a remark\n" + IDLE, "nothing has changed"),
            (endpoints[:2], IDLE + "numprocesses = 2\n", "circusd has read the watchers again"),
            # With other endpoints, too, and the plugins stay at the circusd that runs.
            (endpoints[2:], IDLE, "circusd has read the watchers again"),
        ):
            count = command.output.count("reloaded: ")
            write_ini(tmp_path, *ends, watchers, plugin("one"))
            command.signal(signal.SIGHUP)
            line = command.wait_for("reloaded: ", count + 1)
            assert line.strip().endswith(f"reloaded: {told}"), watchers
        command.interrupt()
        assert command.end() == 0
    assert command.output.count("plugin:one: init") == 1


def test_ctrl_c_while_circusd_starts_leaves_nothing(up: Up) -> None:
    with up(IDLE, plugin("one")) as command:
        command.wait_for("circus[")  # the first that circusd says
        command.interrupt()
        assert command.end() in (0, 130)
    assert "Traceback" not in command.output
    assert command.output.count("one: init") == command.output.count("one: stop")


def test_sighup_while_circusd_starts_does_no_harm(up: Up) -> None:
    with up(IDLE, plugin("one")) as command:
        command.wait_for("circus[")
        command.signal(signal.SIGHUP)
        command.wait_for("plugin:one: init")
        command.interrupt()
        assert command.end() == 0


def test_a_hurried_ctrl_c_leaves_nothing_either(up: Up, fifo: Fifo) -> None:
    holder = plugin("holds", "tellers.Holder", isolate="yes", fifo=fifo.path)
    with up(IDLE, plugin("lingers", "tellers.Lingers"), holder) as command:
        command.wait_for("plugin:lingers: init")
        fifo.wait_held()
        command.interrupt()
        command.wait_for("plugin:lingers: stopping")
        command.signal(signal.SIGKILL)
        command.wait_silent()
    fifo.wait_unheld()


def test_a_faulty_file_is_told_before_circusd_is_started(tmp_path: Path) -> None:
    path = write_ini(tmp_path, *free_endpoints(2), IDLE, plugin("one", host_criticl="yes"))
    done = run(tmp_path, "up", path, env=QUIET)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "did you mean 'host.critical'?" in done.stderr
