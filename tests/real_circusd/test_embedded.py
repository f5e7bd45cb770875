# An Arbiter in somebody's program that starts a circusd for its watchers. The processes of the
# watchers hold a FIFO open: its end says that every last one is gone.

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from circusd_real import free_endpoints
from command import Fifo, holder
from members import Journal, Member
from patience import PATIENCE

from circusplug import Arbiter, CallError, CallTimeout, HostError

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the promise needs Linux's child subreaper"
)

#: Circus's hooks and streams, as a program's module has them.
MODULE = """
import os

def before(watcher, arbiter, hook_name, **more):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{hook_name} {watcher.name}\\n")
    return True

def fails(watcher, arbiter, hook_name, **more):
    raise OSError("no")

class Stream:
    def __init__(self, path, **more):
        self._path = path

    def __call__(self, data):
        with open(self._path, "ab") as file:
            file.write(data["data"] if isinstance(data["data"], bytes) else data["data"].encode())

    def close(self):
        pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the program's, which only its own sys.path leads to."""
    name = f"of_program_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield __import__(name)
    del sys.modules[name]


QUIET = {"multicast_endpoint": ""}


def test_the_watchers_run_while_the_host_does_and_no_longer(
    fifo: Fifo, ends: dict[str, Any], journal: Journal
) -> None:
    plugin = {"use": Member, "name": "one", "journal": journal}
    watchers = [holder(fifo, "My Holder", numprocesses=2)]
    with Arbiter([plugin], watchers=watchers, circusd=QUIET, **ends) as arbiter:
        fifo.wait_held(2)
        assert arbiter.plugins["one"].state == "running"
        assert arbiter.client.call("list")["watchers"] == ["my holder"]
        arbiter.client.call("incr", name="My Holder", waiting=True)
        fifo.wait_held()
        journal.wait("one", "spawn")
    assert journal.of("one")[-1] == "stop"
    fifo.wait_unheld()


def test_the_plugins_stop_first_and_reach_circusd_even_then(ends: dict[str, Any]) -> None:
    found = []

    class Asks(Member):
        def handle_stop(self) -> None:
            found.append(self.call("list")["watchers"])

    plugin = {"use": Asks, "name": "one", "journal": Journal()}
    with Arbiter([plugin], watchers=[], circusd=QUIET, **ends):
        pass
    assert found == [[]]


def test_everything_that_a_watcher_can_be_told_gets_there(
    tmp_path: Path, ends: dict[str, Any], module: Any, fifo: Fifo
) -> None:
    text = tmp_path / "told"
    script = 'printf "%s|%s|%s\\n" "$GREETING" "$PWD" "$1" > "$TOLD"; echo out; ulimit -n >&2;'
    script += f"exec 3>{fifo.path}; echo up >&3; exec sleep 120"
    watcher = {
        "name": "told",
        "cmd": Path("/bin/sh"),
        "args": ["-c", script, "sh", 'it\'s  a $HOME; \\ "thing" # ; no comment'],
        "working_dir": tmp_path,
        "env": {"GREETING": "a b'c\n;d", "TOLD": str(text), "PATH": os.environ["PATH"]},
        "rlimits": {"nofile": 123},
        "stop_signal": signal.SIGINT,
        "stdout_stream": {"class": f"{module.__name__}.Stream", "path": str(tmp_path / "out")},
        "stderr_stream": {"filename": str(tmp_path / "err")},
        "hooks": {
            "before_start": (module.before, False),
            "after_spawn": (f"{module.__name__}.before", True),
        },
        "flapping.max_retry": 3,
        "graceful_timeout": 5,
    }
    with Arbiter(watchers=[watcher], circusd=QUIET, **ends) as arbiter:
        fifo.wait_held()
        options = arbiter.client.call("options", name="told")["options"]
        assert options["stop_signal"] == signal.SIGINT
        assert options["flapping.max_retry"] == 3
    wanted = f"a b'c\n;d|{tmp_path}|it's  a $HOME; \\ \"thing\" # ; no comment\n"
    assert text.read_text() == wanted
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "err").read_text() == "123\n"
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes == ["before_start told", "after_spawn told"]


def test_circusd_itself_is_told_its_options(ends: dict[str, Any]) -> None:
    web = {"name": "web", "host": "127.0.0.1", "port": 0}
    (stats,) = free_endpoints(1)
    options = {**QUIET, "sockets": [web], "statsd": True, "stats_endpoint": stats}
    with Arbiter(watchers=[], circusd=options, **ends) as arbiter:
        sockets = arbiter.client.call("listsockets")["sockets"]
        assert [item["name"] for item in sockets] == ["web"]
        assert arbiter.client.call("list")["watchers"] == ["circusd-stats"]
        assert arbiter.client.call("globaloptions")["options"]["check_delay"] == 0.2


def test_a_program_s_circusd_can_be_restarted_from_within(
    fifo: Fifo, ends: dict[str, Any], journal: Journal
) -> None:
    plugin = {"use": Member, "name": "one", "journal": journal}
    with Arbiter([plugin], watchers=[holder(fifo)], circusd=QUIET, **ends) as arbiter:
        fifo.wait_held()
        arbiter.client.cast("restart")  # circusd may be gone before its reply has left
        fifo.wait_held()
        watchers = None
        while watchers is None:
            with contextlib.suppress(CallTimeout):  # the circusd before has taken it along
                watchers = arbiter.client.call("list")["watchers"]
        assert watchers == ["holds"]
    fifo.wait_unheld()


# When circusd ends, or does not start


def circusd_pid(caplog: pytest.LogCaptureFixture) -> int:
    return next(
        int(record.getMessage().rsplit(None, 1)[1])
        for record in caplog.records
        if record.getMessage().startswith("circusd runs, process")
    )


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "circusplug"):
        yield caplog


def test_a_circusd_that_is_killed_makes_the_arbiter_fail(
    fifo: Fifo, ends: dict[str, Any], journal: Journal, log: pytest.LogCaptureFixture
) -> None:
    held = threading.Event()

    class Kills(Member):
        def handle_recv(self, data: Any) -> None:
            if held.is_set():
                self.note("kills")
                os.kill(circusd_pid(log), signal.SIGKILL)

    plugin = {"use": Kills, "name": "one", "journal": journal}
    arbiter = Arbiter([plugin], watchers=[holder(fifo)], circusd=QUIET, **ends)

    def cause_an_event() -> None:
        fifo.wait_held()
        held.set()
        with contextlib.suppress(CallError, HostError):
            arbiter.client.call("incr", name="holds")

    other = threading.Thread(target=cause_an_event)
    other.start()
    with pytest.raises(HostError, match=r"^circusd was killed by SIGKILL$"):
        arbiter.start()
    other.join()
    assert journal.of("one")[-1] == "stop"
    fifo.wait_unheld()


def test_a_circusd_that_is_told_to_quit_stops_the_arbiter_without_an_error(
    fifo: Fifo, ends: dict[str, Any]
) -> None:
    arbiter = Arbiter(watchers=[holder(fifo)], circusd=QUIET, **ends)

    def quit_it() -> None:
        fifo.wait_held()
        with contextlib.suppress(HostError):  # circusd may be gone before its answer has left
            arbiter.client.call("quit")

    other = threading.Thread(target=quit_it)
    other.start()
    arbiter.start()
    other.join()
    assert arbiter.failure is None
    fifo.wait_unheld()


def test_a_taken_port_is_told_and_no_plugin_is_started(
    ends: dict[str, Any], journal: Journal
) -> None:
    plugin = {"use": Member, "name": "one", "journal": journal}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as taken:
        taken.bind(ends["endpoint"])
        arbiter = Arbiter([plugin], watchers=[], circusd=QUIET, **ends)
        with pytest.raises(HostError) as caught:
            arbiter.start()
        with (
            pytest.raises(HostError, match="Address already in use"),
            Arbiter(watchers=[], circusd=QUIET, **ends),
        ):
            pass
    told = str(caught.value)
    assert told.startswith("watchers: circusd did not start: Address already in use")
    assert ends["endpoint"] in told
    assert "\n" not in told
    assert journal.entries == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"numprocesses": "many"}, "watcher 'web': ValueError: .*'many'"),
        ({"hooks": {"before_start": ("no.such.module", False)}}, "watcher 'web': .*no.such.module"),
        ({"stdout_stream": {"class": "no.Such"}}, "watcher 'web': .*no"),
        ({"singleton": True, "numprocesses": 2}, "watcher 'web': ValueError: Cannot have 2"),
    ],
)
def test_what_circus_refuses_is_told_with_the_watcher_s_name(
    ends: dict[str, Any], options: dict[str, Any], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = {"cmd": "sleep 1", "name": "good"}, {"cmd": "sleep 1", "name": "web", **options}
    arbiter = Arbiter(watchers=[good, bad], circusd=QUIET, **ends)
    with pytest.raises(HostError, match=f"^watchers: circusd did not start: {told}") as caught:
        arbiter.start()
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


def test_a_stop_is_heard_while_circusd_starts(
    ends: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # circusd imports this when it begins, and gets no further.
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "held.py").write_text(f"open({str(gate)!r}).read()\ndef hook(**_): return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    watcher = {"cmd": "sleep 1", "hooks": {"before_start": ("held.hook", False)}}
    arbiter = Arbiter(watchers=[watcher], circusd=QUIET, **ends)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            arbiter.start()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    fd = os.open(gate, os.O_WRONLY)  # returns when circusd is there
    arbiter.stop()
    thread.join(PATIENCE)
    os.close(fd)
    assert not thread.is_alive()
    assert failed == []


def test_without_circus_the_error_says_what_to_install(
    ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "circus", None)
    with pytest.raises(HostError, match=r"^'watchers' need .*pip install 'circusplug\[circusd\]'$"):
        Arbiter(watchers=[], **ends).start()


def test_circusd_finds_what_was_said_in_a_file_that_others_cannot_read(
    fifo: Fifo, ends: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    watcher = holder(fifo, env={"PASSWORD": "s3cret", "PATH": os.environ["PATH"]})
    with Arbiter(watchers=[watcher], circusd=QUIET, **ends):
        fifo.wait_held()
        circusd = psutil.Process(circusd_pid(log))
        lines = [*circusd.cmdline(), *circusd.parents()[0].cmdline()]
        assert "s3cret" not in json.dumps(lines)
