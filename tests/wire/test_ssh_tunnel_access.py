# Who may connect to the sockets of an ssh tunnel; a stand-in for ssh needs no server.

from __future__ import annotations

import os
import stat
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from patience import PATIENCE
from ssh_stand_in import ENDS, Opening, StandIn, paths
from troublemakers import Talker

from circusplug import Arbiter, HostError, PluginSpec
from circusplug._logs import logger
from circusplug._wire.ssh_tunnel import Tunnel, open_tunnel

DAEMON, NOBODY, SOMEBODY, STRANGER = 1, 65534, 54321, 54322


def mode_and_owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")


def test_without_others_only_this_user_can_enter_the_directory(ssh: StandIn) -> None:
    with open_tunnel("host", *ENDS, None) as link:
        commands, events = paths(link)
        assert mode_and_owner(commands.parent) == (0o700, os.geteuid())
        for path in (commands, events):
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert mode_and_owner(path) == (0o600, os.geteuid())
        assert sorted(commands.parent.iterdir()) == [commands, events]
    assert not commands.parent.exists()


def test_each_other_user_has_sockets_of_his_own(ssh: StandIn) -> None:
    as_root()
    with Opening(uids=[NOBODY, SOMEBODY, NOBODY, os.geteuid()]) as opening:
        opening.tunnel.wait(PATIENCE)
        own = paths(opening.tunnel.link())
        assert mode_and_owner(own[0].parent) == (0o711, os.geteuid())
        every = list(own)
        for uid in (NOBODY, SOMEBODY):
            his = paths(opening.tunnel.link(uid))
            assert [mode_and_owner(path) for path in his] == [(0o600, uid)] * 2
            every += his
        assert [mode_and_owner(path) for path in own] == [(0o600, os.geteuid())] * 2
        assert paths(opening.tunnel.link(os.geteuid())) == own
        assert sorted(own[0].parent.iterdir()) == sorted(every)


_CONNECT = """\
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("in")
    except PermissionError:
        print("out")
"""


def test_only_those_meant_can_connect_each_to_his_own(ssh: StandIn) -> None:
    as_root()
    with Opening(uids=[NOBODY, SOMEBODY]) as opening:
        opening.tunnel.wait(PATIENCE)
        links = {uid: opening.tunnel.link(uid) for uid in (None, NOBODY, SOMEBODY)}
        ends = [str(path) for link in links.values() for path in paths(link)]
        for uid in (NOBODY, SOMEBODY, STRANGER):
            done = subprocess.run(
                ["/usr/bin/env", "python3", "-c", _CONNECT, *ends],
                user=uid,
                group=uid,
                extra_groups=[],
                env={"PATH": os.defpath},
                cwd="/",
                capture_output=True,
                text=True,
            )
            said = ["in" if owner == uid else "out" for owner in links for _ in range(2)]
            assert done.stdout.split() == said, done.stderr


def test_after_a_new_ssh_the_others_get_in_again(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root()
    up_again = threading.Event()
    monkeypatch.setattr(logger, "info", lambda *_: up_again.set())
    with Opening(uids=[NOBODY]) as opening:
        opening.tunnel.wait(PATIENCE)
        ssh.wait_started().kill()
        assert up_again.wait(PATIENCE)
        his = paths(opening.tunnel.link(NOBODY))
        assert [mode_and_owner(path) for path in his] == [(0o600, NOBODY)] * 2


def test_a_user_who_was_not_meant_gets_an_error_and_no_link(ssh: StandIn) -> None:
    as_root()
    with (
        Opening(uids=[NOBODY]) as opening,
        pytest.raises(HostError, match=f"opened without user {SOMEBODY}"),
    ):
        opening.tunnel.link(SOMEBODY)


def test_a_plugin_of_a_user_without_a_way_is_refused_before_anything_changes(
    ssh: StandIn,
) -> None:
    as_root()
    known = {"use": Talker, "name": "known", "isolate": True, "host.uid": NOBODY}
    new = {**known, "name": "new", "host.uid": DAEMON}
    specs = [PluginSpec.from_options({**options, "active": False}) for options in (known, new)]
    wanted = PluginSpec.from_options(new)
    words = f"new.*: the ssh tunnel was opened without user {DAEMON}; start the host again"
    with Arbiter(specs[:1], *ENDS, ssh_server="host") as arbiter:
        with pytest.raises(HostError, match=words):
            arbiter.reconfigure(replace(arbiter.config, plugins=(wanted,)))
        with pytest.raises(HostError, match=words):
            arbiter.add_plugin(wanted)
        assert list(arbiter.plugins) == ["known"]
        arbiter.add_plugin(specs[1])  # one that does not run needs no way


def test_who_is_not_root_lets_nobody_in_and_runs_nobody_else(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with Opening(uids=[NOBODY, SOMEBODY]) as opening:
        opening.tunnel.wait(PATIENCE)
        link = opening.tunnel.link()
        assert opening.tunnel.link(NOBODY) == opening.tunnel.link(SOMEBODY) == link
        directory = paths(link)[0].parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(list(directory.iterdir())) == 2


def test_nothing_but_the_sockets_themselves_is_given_to_others(tmp_path: Path) -> None:
    as_root()
    tunnel = Tunnel("host", *ENDS, uids=[NOBODY])
    tunnel._directory = str(tmp_path)
    victim = tmp_path / "victim"
    victim.touch()
    for end in ("commands", "events"):
        (tmp_path / f"{end}-{NOBODY}").symlink_to(victim)
    tunnel._stand()
    assert victim.stat().st_uid == 0
    assert (tmp_path / f"commands-{NOBODY}").lstat().st_uid == NOBODY
