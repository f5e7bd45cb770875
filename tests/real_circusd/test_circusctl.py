# The stock circusctl, as a user types it, against a host in each of its forms: every command has a
# sensible exit status and text that makes sense.

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from circusd_real import RealCircusd, free_endpoints
from command import Running, assert_ends, environment, plugin, write_ini
from patience import wait_while
from steered import Ends
from stock_circusctl import Circusctl
from wire import Wire

from circusplug._control import places

CIRCUSCTL = Path(sys.executable).with_name("circusctl")
PLUGINS = (
    plugin("a", "circusplug.plugins.Logger", filename="/dev/null"),
    plugin("cage", "circusplug.plugins.Logger", filename="/dev/null", isolate="true"),
)

pytestmark = pytest.mark.skipif(not CIRCUSCTL.exists(), reason="circus has no circusctl here")


class Host:
    """A host that runs, and circusctl for it."""

    circusctl: Circusctl

    def __init__(self, file: Path) -> None:
        self.file = file
        endpoint = places.endpoint_of(str(file))
        self.ends = Ends(endpoint, places.events_endpoint_of(endpoint))

    def ctl(self, *arguments: str, status: int = 0) -> str:
        """What circusctl prints, on whichever stream."""
        found, said = self.circusctl.run(
            "--timeout", "30", "--endpoint", self.ends.endpoint, *arguments
        )
        assert (found, "Traceback" in said) == (status, False), said
        return said.strip()

    def pid(self, name: str) -> str:
        return self.ctl("list", f"plugin:{name}")

    def wait_active(self) -> None:
        path = self.ends.endpoint.removeprefix("ipc://")
        wait_while(lambda: not places.is_alive(path))
        with Wire(self.ends) as wire:
            wait_while(lambda: set(wire.call("status")["statuses"].values()) != {"active"})


# Each is ended by circusctl, too; if that does not work, the tear-down of its last test fails.


def host_under_run(directory: Path) -> Iterator[Host]:
    with RealCircusd({"web": {}}) as circusd:
        path = write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, *PLUGINS)
        with Running(directory, "run", path) as command:
            host = Host(path)
            yield host
            assert host.ctl("quit", "--waiting") == "ok"
            assert command.end() == 0


def host_under_up(directory: Path) -> Iterator[Host]:
    path = write_ini(directory, *free_endpoints(2), "[watcher:web]\ncmd = sleep 100\n", *PLUGINS)
    with Running(directory, "up", path, env=environment(PYTHONWARNINGS="")) as command:
        host = Host(path)
        yield host
        assert host.ctl("quit", "--waiting") == "ok"
        assert command.end() == 0


def host_under_circusd(directory: Path) -> Iterator[Host]:
    path = write_ini(directory, *free_endpoints(2), *PLUGINS, name="plugins.ini")
    section = {"use": "circusplug.Host", "config": path}
    with RealCircusd({"web": {}}, plugins={"circusplug": section}) as circusd:
        host = Host(path)
        yield host
        pids = circusd.call("list", name="plugin:circusplug")["pids"]
        assert host.ctl("quit", "--waiting") == "ok"
        assert_ends(*pids)


HOSTS = {"run": host_under_run, "up": host_under_up, "Host": host_under_circusd}


@pytest.fixture(scope="module", params=HOSTS)
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    if request.param == "Host" and " " in sys.executable:
        pytest.skip("circusd starts no plugin if Python's own path holds a space")
    directory = tmp_path_factory.mktemp("host")
    with Circusctl(directory / "said") as circusctl:
        for host in HOSTS[request.param](directory):
            host.circusctl = circusctl
            host.wait_active()
            yield host


#: What circusctl is told, and what a part of what it prints looks like.
SAYS = [
    ("list", r"^plugin:a,plugin:cage$"),
    ("list plugin:a", r"^\d+$"),
    ("status", r"^plugin:a: active\nplugin:cage: active$"),
    ("status plugin:a", r"^active$"),
    ("stats", r"^plugin:a:\n(\d+): \1  circusplug.*\nplugin:cage:\n(\d+): \2  circusplug"),
    (
        "stats plugin:cage",
        rf"^plugin:cage:\n(\d+): \1  circusplug.plugins.Logger \w+ {os.nice(0)} "
        r".*M .*M .* \d+:\d\d",
    ),
    ("dstats", r"^Main Process:\n    \d+  circusplug"),
    ("options plugin:a", r"^filename: /dev/null$"),
    ("get plugin:a filename", r"^filename: /dev/null$"),
    ("globaloptions", r"^circusd_endpoint: \w+://"),
    ("numwatchers", r"^2$"),
    ("numprocesses", r"^2$"),
    ("numprocesses plugin:a", r"^1$"),
    ("listsockets", r"^$|^None$|[Ss]ocket"),
    ("stop plugin:a --waiting", r"^ok$"),
    ("start plugin:a --waiting", r"^ok$"),
    ("restart plugin:* --waiting", r"^ok$"),
    ("restart plugin:(a|b) --match regex --waiting", r"^ok$"),
    ("reload plugin:cage --waiting", r"^ok$"),
    ("reload --waiting", r"^ok$"),
    ("reloadconfig --waiting", r"^ok$"),
    ("signal plugin:cage cont", r"^ok$"),
]


@pytest.mark.parametrize(("command", "says"), SAYS, ids=[command for command, _ in SAYS])
def test_a_command_prints_what_it_prints_for_a_circusd(host: Host, command: str, says: str) -> None:
    assert re.search(says, host.ctl(*command.split()), re.MULTILINE)


#: The same for what a host refuses.
REFUSED = [
    ("status plugin:b", r"^error$"),  # it prints no more for a circusd either
    ("stats plugin:b", r"program plugin:b not found"),
    ("stop plugin:b", r"program plugin:b not found"),
    ("get plugin:a filenam", r"'filenam' option not found \(did you mean 'filename'\?\)"),
    ("incr plugin:a", r"a plugin has one process or thread"),
    ("decr plugin:a", r"a plugin has one process or thread"),
    ("set plugin:a numprocesses 2", r"its section of the file; edit that, then 'reloadconfig'"),
    ("rm plugin:a", r"in its section of the file"),
    ("add new sleep 1", r"in its section of the file"),
    ("signal plugin:a usr1", r"runs on a thread of the host"),
]


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[command for command, _ in REFUSED])
def test_what_is_refused_is_an_error_with_a_reason(host: Host, command: str, says: str) -> None:
    assert re.search(says, host.ctl(*command.split(), status=3), re.MULTILINE)


def test_a_killed_plugin_comes_back(host: Host) -> None:
    pid = host.pid("cage")
    assert host.ctl("signal", "plugin:cage", "kill") == "ok"
    wait_while(lambda: host.pid("cage") in ("", pid))
    host.wait_active()


def test_the_answers_as_json_are_circusds(host: Host) -> None:
    told = json.loads(host.ctl("--json", "stats", "plugin:a"))
    (info,) = told["info"].values()
    assert {"cpu", "mem", "received", "handled", "errors", "lag", "last_error"} <= info.keys()


def test_listen_shows_what_happens_to_plugins(host: Host) -> None:
    listening = [str(CIRCUSCTL), "--endpoint", host.ends.pubsub_endpoint, "listen", "watcher."]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(listening, stdout=subprocess.PIPE, env=environ) as process:
        try:
            assert process.stdout is not None
            fd, lines = process.stdout.fileno(), b""
            while b"plugin:a.spawn" not in lines:  # the subscription takes a while
                host.ctl("restart", "plugin:a", "--waiting")
                if select.select([fd], [], [], 0)[0]:
                    lines += os.read(fd, 10_000)
            assert b"watcher.plugin:a.spawn" in lines
            assert b'"process_pid": ' in lines
        finally:
            process.kill()
