# What an isolated plugin has that one on a thread cannot have: a directory, limits, an environment
# and a signal that stops it.

from __future__ import annotations

import importlib
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from hosts import Host
from scene import is_frozen, said, wait
from troublemakers import Surveyor, Talker, Troublemaker

from circusplug import PluginSpec
from circusplug.testing import FakeCircusd

pytestmark = pytest.mark.usefixtures("unhurried_end")


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


def test_the_process_of_the_hosts_user_has_the_hosts_environment_of_now(
    host: Host, circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    host()  # the forkserver may well be there
    monkeypatch.setenv("COLOUR", "of this day")
    assert survey(host, circusd)["env"]["COLOUR"] == "of this day"


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
        | {"host.stdout": fifo, "host.rlimit_nofile": hard, "active": False}
    )
    arbiter.add_plugin(spec)
    arbiter.start_plugin("one")
    status = wait(arbiter, lambda status: status.state == "failed")
    said = f"its process cannot be set up: FileNotFoundError: host.stdout = {fifo}: No such file"
    assert said in str(status.last_error)


def test_stop_signal_is_what_a_stuck_plugin_gets(
    host: Host, circusd: FakeCircusd, caplog: pytest.LogCaptureFixture, soon_forced: None
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
