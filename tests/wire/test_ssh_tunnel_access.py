# The ssh tunnel with a stand-in for ssh, which needs no server: who may connect to the sockets,
# and what becomes of an ssh that says nothing, cannot be started, or ends.

from __future__ import annotations

import errno
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from patience import PATIENCE
from troublemakers import Talker

from circusplug import Arbiter, HostError, PluginSpec
from circusplug._logs import logger
from circusplug._wire.endpoints import Link
from circusplug._wire.ssh_command import ssh_command, target
from circusplug._wire.ssh_tunnel import Tunnel, open_tunnel

DAEMON, NOBODY, SOMEBODY, STRANGER = 1, 65534, 54321, 54322
ENDS = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"

#: As much of ssh as a tunnel takes. It tells of its start, and does what a file beside it says.
STAND_IN = """\
#!{python} -SE
import json, os, pathlib, signal, socket, sys
here = pathlib.Path(__file__).parent
what = (here / "what").read_text()
pairs = list(zip(sys.argv, sys.argv[1:]))
options = dict(value.split("=", 1) for flag, value in pairs if flag == "-o")
ends = [value.split(":", 1)[0] for flag, value in pairs if flag == "-L"]
if what == "silent":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = json.dumps({{"pid": os.getpid(), "arguments": sys.argv[1:]}})
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
    teller.sendto(told.encode(), str(here / "starts"))
if what == "refuse":
    sys.exit("no entry\\nfor you")
if what == "end":
    os._exit(7)
if what == "talk":
    os.write(2, b"one moment\\n")
if what in ("silent", "talk"):
    signal.pause()
if what == "chatty":
    for _ in range(20000):
        print("x" * 100, file=sys.stderr)
os.umask(int(options["StreamLocalBindMask"], 8))
sockets = []
for end in ends:
    if options["StreamLocalBindUnlink"] == "yes" and os.path.exists(end):
        os.unlink(end)
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].bind(end)
    sockets[-1].listen()
if options["PermitLocalCommand"] == "yes":
    os.system(options["LocalCommand"])
signal.pause()
"""


class StandIn:
    """An `ssh` that pretends; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        program = directory / "ssh"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        self.will("stand")
        self._starts = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._starts.bind(str(directory / "starts"))
        self._starts.settimeout(PATIENCE)

    def will(self, what: str) -> None:
        """Say what those do that are started from now on."""
        (self._directory / "what").write_text(what)

    def wait_started(self) -> psutil.Process:
        """Wait for one more to be started, and return it."""
        return psutil.Process(json.loads(self._starts.recv(100_000))["pid"])

    def close(self) -> None:
        self._starts.close()


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    (tmp_path / "bin").mkdir()
    stand_in = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.RETRY_DELAY", 0.001)
    yield stand_in
    stand_in.close()


class Opening:
    """A tunnel, and what it calls."""

    def __init__(self, **options: Any) -> None:
        self.calls: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.tunnel = Tunnel(
            "host",
            *ENDS,
            on_up=lambda: self._note("up"),
            on_failed=lambda reason: self._note(f"failed: {reason}"),
            **options,
        )

    def _note(self, what: str) -> None:
        self.calls.put((what, threading.current_thread().name))

    def __enter__(self) -> Opening:
        self.tunnel.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.tunnel.close()


def paths(link: Link) -> list[Path]:
    return [Path(end.removeprefix("ipc://")) for end in (link.endpoint, link.pubsub_endpoint)]


def mode_and_owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")


# Who may connect


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


# Opening, without waiting for it


def test_what_waits_for_nothing_is_called_when_the_tunnel_stands(ssh: StandIn) -> None:
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE) == ("up", "ssh-tunnel")
        assert paths(opening.tunnel.link())[0].exists()
        ssh.wait_started().kill()
        ssh.wait_started()
    assert opening.calls.empty()


@pytest.mark.parametrize(
    ("what", "reason"), [("refuse", "for you"), ("end", "ssh exited with status 7")]
)
def test_an_ssh_that_ends_is_told_in_its_last_words(ssh: StandIn, what: str, reason: str) -> None:
    ssh.will(what)
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE) == (f"failed: {reason}", "ssh-tunnel")
        with pytest.raises(HostError, match=f"no ssh tunnel through host: {reason}"):
            opening.tunnel.wait()


@pytest.fixture
def deaf() -> Iterator[None]:
    """Let what is started ignore SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_silent_ssh_is_given_up_and_killed(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, deaf: None
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel._END_WAIT", 0.1)
    ssh.will("silent")
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
        assert what == "failed: not ready after 0 s"


def test_the_end_of_an_ssh_is_seen_where_nobody_hears_sigterm(ssh: StandIn, deaf: None) -> None:
    ssh.will("end")
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
        assert what == "failed: ssh exited with status 7"


def test_an_ssh_that_only_talks_is_given_up_at_the_same_time(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.chain([0.0] * 3, itertools.repeat(1e6))  # the wait for a word, and after
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.time", clock)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 1000.0)
    ssh.will("talk")
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "failed: not ready after 1000 s"


def test_a_silent_ssh_after_one_that_stood_is_followed_by_another(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_again, gave_up = threading.Event(), threading.Event()
    monkeypatch.setattr(logger, "info", lambda *_: up_again.set())
    monkeypatch.setattr(
        logger, "warning", lambda *said: gave_up.set() if "not ready after 0 s" in said else None
    )
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"
        ssh.will("silent")
        monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
        ssh.wait_started().kill()
        assert gave_up.wait(PATIENCE)
        ssh.will("stand")
        monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", PATIENCE)
        assert up_again.wait(PATIENCE)
    assert opening.calls.empty()  # each is called once, and later nobody waits for it


def test_a_tunnel_that_has_stood_is_tried_again_as_soon_each_time(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_again = threading.Semaphore(0)
    delays: list[float] = []
    monkeypatch.setattr(logger, "info", lambda *_: up_again.release())
    monkeypatch.setattr(logger, "warning", lambda *said: delays.append(said[-1]))
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        for _ in range(3):
            ssh.wait_started().kill()
            assert up_again.acquire(timeout=PATIENCE)
    assert delays == [0.001] * 3


def test_a_silent_ssh_keeps_nobody_from_closing(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 1000.0)
    monkeypatch.setattr("circusplug._wire.ssh_tunnel._END_WAIT", 0.1)
    ssh.will("silent")
    with Opening() as opening:
        process = ssh.wait_started()
        failures: queue.SimpleQueue[str] = queue.SimpleQueue()

        def wait() -> None:
            try:
                opening.tunnel.wait()
            except HostError as error:
                failures.put(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        opening.tunnel.close()
        assert failures.get(timeout=PATIENCE) == "no ssh tunnel through host: closed"
        waiting.join()
        assert psutil.wait_procs([process], PATIENCE)[1] == []
        assert not paths(opening.tunnel.link())[0].parent.exists()
    assert opening.calls.empty()


def test_a_tunnel_that_is_closed_starts_no_ssh_and_tells_nobody_that_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it is started"))
    opening = Opening()
    opening.tunnel.close()
    assert opening.tunnel._run() == (False, "")
    opening.tunnel._stand()
    assert opening.calls.empty()


def test_the_first_word_of_how_it_went_counts() -> None:
    for first, words in (("why", "host: why$"), (None, None)):
        tunnel = Tunnel("host", *ENDS)
        tunnel._tell(first)
        tunnel.close()
        if words is None:
            tunnel.wait()
        else:
            with pytest.raises(HostError, match=words):
                tunnel.wait()


def test_an_opening_may_be_waited_for_for_some_time(ssh: StandIn) -> None:
    ssh.will("silent")
    with Opening() as opening, pytest.raises(HostError, match=r"not ready after 0\.01 s"):
        opening.tunnel.wait(0.01)


def test_a_tunnel_closes_itself_in_its_own_callback(ssh: StandIn) -> None:
    ssh.will("refuse")
    closed = threading.Event()

    def close(_: str) -> None:
        tunnel.close()
        closed.set()

    tunnel = Tunnel("host", *ENDS, on_failed=close)
    tunnel.start()
    assert closed.wait(PATIENCE)


def test_what_ssh_says_without_end_is_read_and_forgotten(ssh: StandIn) -> None:
    ssh.will("chatty")
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"


# What cannot be started


class NoProcesses:
    """Stands for a system that has no process left for so many starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = subprocess.Popen
        self.left = 0
        self.failed = threading.Event()
        monkeypatch.setattr(subprocess, "Popen", self.start)

    def start(self, *args: Any, **options: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            self.failed.set()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._start(*args, **options)


def test_an_ssh_that_cannot_be_started_is_tried_again(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_processes = NoProcesses(monkeypatch)
    no_processes.left = 2
    with Opening() as opening:
        assert opening.calls.get(timeout=PATIENCE)[0] == "up"
        no_processes.left = 2
        ssh.wait_started().kill()
        ssh.wait_started()
    assert caplog.text.count("ssh cannot be run: Resource temporarily unavailable; next try") == 4


def test_the_tries_grow_rarer_while_none_succeeds(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.RETRY_DELAY_MAX", 0.005)
    delays: queue.SimpleQueue[float] = queue.SimpleQueue()
    monkeypatch.setattr(logger, "warning", lambda *said: delays.put(said[-1]))
    no_processes = NoProcesses(monkeypatch)
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        no_processes.left = 5
        ssh.wait_started().kill()
        ssh.wait_started()
    assert [delays.get() for _ in range(6)] == [0.001, 0.002, 0.004, 0.005, 0.005, 0.005]


def test_of_what_ssh_says_without_end_the_last_is_told() -> None:
    tunnel = Tunnel("host", *ENDS)
    for said, words in (
        (b"x" * 1500 + b"end", "x" * 997 + "end"),
        (b"begin" + b"x" * 1500 + b"\n \n", "begin" + "x" * 995),
        (b"circusplug-tunnel-is-up\nlast words \xff", "last words \ufffd"),
    ):
        read, write = os.pipe()
        os.write(write, said)
        os.close(write)
        with open(read, "rb") as output:
            process: Any = SimpleNamespace(stdout=output)
            assert tunnel._attend(process) == (said.startswith(b"circus"), words)


def test_ssh_is_told_never_to_ask_and_to_end_when_it_cannot_forward() -> None:
    told = ssh_command("/bin/ssh", ["--", "host"], {"/d/commands": "127.0.0.1:5555"}, "/d")
    assert told[:2] == ["/bin/sh", "-c"]
    assert told[3:7] == ["/d", "/bin/ssh", "-N", "-T"]
    assert told[-4:] == ["-L", "/d/commands:127.0.0.1:5555", "--", "host"]
    options = set(told)
    assert options >= {
        "BatchMode=yes",
        "ControlMaster=no",
        "ControlPath=none",
        "ExitOnForwardFailure=yes",
        "ServerAliveCountMax=2",
        "ServerAliveInterval=2",
        "StreamLocalBindMask=0177",
    }


@pytest.mark.parametrize(
    ("endpoint", "far"),
    [
        ("tcp://*:5555", "127.0.0.1:5555"),
        ("tcp://db:5555", "db:5555"),
        ("ipc:///run/circusd", "/run/circusd"),
    ],
)
def test_an_endpoint_is_seen_from_the_ssh_server(endpoint: str, far: str) -> None:
    assert target(endpoint) == far


@pytest.mark.parametrize("endpoint", ["ipc://relative", "inproc://x", "pgm://x:1"])
def test_an_endpoint_that_ssh_cannot_reach_is_refused(endpoint: str) -> None:
    with pytest.raises(HostError, match="cannot be tunnelled by ssh"):
        Tunnel("host", ENDS[0], endpoint)


def test_one_that_cannot_be_started_for_too_long_is_a_failure(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug._wire.ssh_tunnel.OPEN_WAIT", 0.0)
    NoProcesses(monkeypatch).left = 1_000_000
    with Opening() as opening:
        what, _ = opening.calls.get(timeout=PATIENCE)
    assert what == "failed: ssh cannot be run: Resource temporarily unavailable"


def test_a_directory_that_cannot_be_made_is_an_error(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(HostError, match=r"no ssh tunnel through host: .*No such file"):
        Opening().tunnel.start()


def test_without_a_thread_left_there_is_no_tunnel_and_nothing_of_it(
    ssh: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "bin"))
    before = set(os.listdir(tmp_path / "bin"))
    with pytest.raises(HostError, match="no ssh tunnel through host: can't start new thread"):
        Opening().tunnel.start()
    assert set(os.listdir(tmp_path / "bin")) == before


# What is left


def test_nothing_is_left_of_a_host_that_is_killed(ssh: StandIn, runtime_directory: str) -> None:
    program = (
        "from circusplug._wire.ssh_tunnel import Tunnel\n"
        f"tunnel = Tunnel('host', *{ENDS!r})\n"
        "tunnel.start(); tunnel.wait(); print('up', flush=True); input()\n"
    )
    place = Path(tempfile.mkdtemp(dir=runtime_directory))  # a socket's path has to be short
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"up\n"
        process = ssh.wait_started()
        assert list(place.iterdir())
        host.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([process], PATIENCE)[1] == []
    place.rmdir()  # empty


def test_a_change_to_a_server_that_does_not_let_us_in_leaves_nothing(
    ssh: StandIn, runtime_directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", place := tempfile.mkdtemp(dir=runtime_directory))
    ssh.will("refuse")
    with Arbiter([], *ENDS) as arbiter:
        with pytest.raises(HostError, match="for you"):
            arbiter.reconfigure(replace(arbiter.config, ssh_server="host"))
        os.rmdir(place)  # empty


def test_a_directory_that_has_gone_is_no_trouble_at_the_end(ssh: StandIn) -> None:
    with Opening() as opening:
        opening.tunnel.wait(PATIENCE)
        shutil.rmtree(paths(opening.tunnel.link())[0].parent)
