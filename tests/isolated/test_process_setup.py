# What an isolated plugin has that one on a thread cannot have: a directory, limits, a user and
# output of its own.

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pwd
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Running
from hosts import Host
from patience import PATIENCE
from scene import here, said, wait
from troublemakers import (
    Printer,
    Surveyor,
    Talker,
    Troublemaker,
)

from circusplug import PluginSpec, PluginStatus
from circusplug._config.host_options import HostOptions
from circusplug._isolated import messages
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.output_writer import OUTPUT_LIMIT
from circusplug._isolated.process_setup import _PipeToHost, open_output, set_up
from circusplug.testing import FakeCircusd

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")

pytestmark = pytest.mark.usefixtures("unhurried_end")


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
            home=os.environ["HOME"], environment=dict(os.environ),
        )
        if self.config.get("print"):
            print(self.config["print"])

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


@as_root
@pytest.mark.parametrize("prefix", ["host.", ""])
def test_uid_and_gid(host: Host, circusd: FakeCircusd, modest: dict[str, Any], prefix: str) -> None:
    nobody = pwd.getpwnam("nobody")
    host({**modest, f"{prefix}uid": "nobody", f"{prefix}gid": str(nobody.pw_gid)})
    found = said(circusd, "user")
    assert found["ids"] == [nobody.pw_uid] * 3 + [nobody.pw_gid] * 3
    assert 0 not in found["groups"]
    assert found["home"] == nobody.pw_dir


@as_root
def test_a_process_of_another_user_is_in_that_users_groups_and_in_no_other() -> None:
    program = (
        "import os, pwd\n"
        "from circusplug._isolated.process_setup import _become\n"
        "os.setgroups([0, 54321])\n"
        "user = pwd.getpwnam('nobody')\n"
        "_become(user.pw_uid, None, copy_env=False)\n"
        "print(sorted(os.getgroups()) == sorted(os.getgrouplist('nobody', user.pw_gid)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@as_root
def test_another_users_process_has_a_logins_environment_and_no_more(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    monkeypatch.setenv("LC_TIME", "C")
    host({**modest, "host.uid": "nobody", "host.env.COLOUR": "blue"})
    nobody = pwd.getpwnam("nobody")
    found = said(circusd, "user")["environment"]
    assert found.pop("PATH") == "/usr/local/bin:/usr/bin:/bin"
    assert {found.pop(key) for key in ("USER", "LOGNAME")} == {"nobody"}
    assert (found.pop("HOME"), found.pop("SHELL")) == (nobody.pw_dir, nobody.pw_shell)
    assert (found.pop("COLOUR"), found.pop("LC_TIME")) == ("blue", "C")
    assert all(key.startswith(("LC_", "LANG", "TZ")) for key in found)


@as_root
def test_another_users_process_has_the_hosts_environment_if_it_is_told_so(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "swordfish")
    host({**modest, "host.uid": "nobody", "host.copy_env": "yes"})
    found = said(circusd, "user")["environment"]
    assert (found["WORD"], found["PATH"]) == ("swordfish", os.environ["PATH"])
    assert found["HOME"] == pwd.getpwnam("nobody").pw_dir


def test_the_process_of_the_hosts_user_has_the_hosts_environment_of_now(
    host: Host, circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    host()  # the forkserver may well be there
    monkeypatch.setenv("COLOUR", "of this day")
    assert survey(host, circusd)["env"]["COLOUR"] == "of this day"


def test_the_forkserver_has_nothing_of_the_environment_that_plugins_of_others_shall_not_see(
    host: Host, circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    if FORKSERVER.pid is not None:
        os.kill(FORKSERVER.pid, signal.SIGKILL)
        os.waitid(os.P_PID, FORKSERVER.pid, os.WEXITED | os.WNOWAIT)
    host({"use": Talker, "name": "one"})
    assert "SECRET" not in psutil.Process(FORKSERVER.pid).environ()


@as_root
def test_a_link_in_place_of_its_output_leads_no_further_than_its_user_may_go(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    target = tmp_path / "private" / "target"
    output = Path(modest["host.python_path"], "output")
    os.chmod(output.parent, 0o777)
    os.symlink(target, output)
    os.lchown(output, pwd.getpwnam("nobody").pw_uid, -1)
    arbiter = host()
    arbiter.add_plugin(
        {**modest, "isolate": True, "print": "hello", "host.uid": "nobody", "active": False}
        | {"host.stdout": str(output), "host.restart": "never"}
    )
    arbiter.start_plugin("one")
    status = wait(arbiter, lambda status: status.state == "failed")
    assert "its process cannot be set up: PermissionError" in str(status.last_error)
    assert not target.exists()


@as_root
def test_its_output_is_a_file_of_its_users(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any]
) -> None:
    output = Path(modest["host.python_path"], "output")
    os.chmod(output.parent, 0o777)
    host({**modest, "print": "hello", "host.uid": "nobody", "host.stdout": str(output)})
    said(circusd, "user")
    assert output.stat().st_uid == pwd.getpwnam("nobody").pw_uid


@as_root
def test_output_goes_through_a_link_of_ones_own_and_not_through_one_of_somebody_else(
    tmp_path: Path,
) -> None:
    target, mine, theirs = (tmp_path / name for name in ("target", "mine", "theirs"))
    mine.symlink_to(target)
    theirs.symlink_to(target)
    os.lchown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    os.close(open_output(str(mine)))
    assert target.exists()
    with pytest.raises(PermissionError, match="a link that another user has placed"):
        open_output(str(theirs))


@as_root
def test_a_plugin_of_another_user_can_be_killed(
    host: Host, circusd: FakeCircusd, modest: dict[str, Any], soon_forced: None
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
        | {"host.stdout": fifo, "host.rlimit_nofile": hard, "active": False}
    )
    arbiter.add_plugin(spec)
    arbiter.start_plugin("one")
    status = wait(arbiter, lambda status: status.state == "failed")
    said = f"its process cannot be set up: FileNotFoundError: host.stdout = {fifo}: No such file"
    assert said in str(status.last_error)


@as_root
def test_an_option_that_this_user_may_not_have_is_named(tmp_path: Path) -> None:
    launch = messages.Launch(
        HostOptions(uid=0), 1.0, [], [], None, {}, log_level=0, main={}, plugin=b""
    )
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(*[pwd.getpwnam("nobody").pw_uid] * 3)
            set_up(launch)
        except PermissionError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        assert pipe.read() == b"host.uid = 0: Operation not permitted"
    assert os.waitpid(pid, 0)[1] == 0


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


def test_what_is_printed_when_the_host_is_gone_is_no_error() -> None:
    read, write = os.pipe()
    with contextlib.closing(_PipeToHost(write, "w")) as pipe:
        os.close(read)
        assert pipe.write(b"last words") == len(b"last words")


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


def test_a_file_for_output_is_opened_anew_when_it_was_moved_away(
    host: Host, circusd: FakeCircusd, tmp_path: Path
) -> None:
    out = tmp_path / "logs" / "out"
    out.parent.mkdir()
    arbiter = host({"use": Printer, "name": "one", "host.stdout": str(out)})
    circusd.publish("web", "print")
    said(circusd, "done", action="print")
    first = "printed to stdout\nwritten without a line end by a command\n"
    assert out.read_text() == first
    moved = out.rename(out.with_name("out.1"))
    circusd.publish("web", "print")
    said(circusd, "done", action="print", count=2)
    assert (moved.read_text(), out.read_text()) == (first, first)
    out.parent.rename(tmp_path / "elsewhere")  # where it cannot be opened anew, it goes on
    arbiter.stop()
    assert (tmp_path / "elsewhere" / "out").read_text() == first + "last words\n"


HOSTING_A_FLOOD = """
import logging
import sys
from circusplug import Arbiter
from circusplug._isolated import child_output, output_writer
child_output._REST = 0.001
output_writer.STUCK_WAIT = 0.1
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
    arguments = [circusd.endpoint, circusd.pubsub_endpoint, str(2 * OUTPUT_LIMIT)]
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
        assert grown < 1.5 * OUTPUT_LIMIT
        running.signal(signal.SIGTERM)
        said(circusd, "stop", plugin="flood")
        said(circusd, "stop", plugin="quiet")
        running._process.wait(PATIENCE)
        assert running._process.returncode == 0
        errors.seek(0)
        assert errors.read() == ""
