# An isolated plugin of another user: its groups, its environment and its output, what it may not
# have, and that it can be killed.

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hosts import Host
from scene import is_frozen, said, wait
from troublemakers import Talker

from circusplug._config.host_options import HostOptions
from circusplug._isolated import messages
from circusplug._isolated.forkserver import FORKSERVER
from circusplug._isolated.process_setup import open_output, set_up
from circusplug.testing import FakeCircusd

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")

pytestmark = pytest.mark.usefixtures("unhurried_end")

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
