# The ssh tunnel, through a real sshd on loopback that the module starts for itself: its own
# keys, its own configuration, a free port.

from __future__ import annotations

import contextlib
import getpass
import os
import queue
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest
from circusd_real import free_endpoints
from patience import PATIENCE

from circusplug import Arbiter, CircusPlugin, HostConfig, HostError
from circusplug._wire.commands import DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT
from circusplug._wire.ssh_command import destination
from circusplug._wire.ssh_tunnel import open_tunnel
from circusplug.testing import FakeCircusd

#: Not always in the PATH of those who are not root.
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Sshd:
    """An sshd that lets the current user in with one key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_endpoints(1)[0].rpartition(":")[2]
        self.process: subprocess.Popen[str] | None = None
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name]
            subprocess.run(command, check=True)
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\n"
            f"AuthorizedKeysFile {directory}/user.pub\nStrictModes no\nPidFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        )
        self.let_in("user")
        (directory / "bin").mkdir()
        wrapper = directory / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
        wrapper.chmod(0o755)

    @property
    def server(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    def let_in(self, key: str) -> None:
        """Have ssh use this key from now on."""
        (self.directory / "config").write_text(
            f"IdentityFile {self.directory}/{key}\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {self.directory}/known\nStrictHostKeyChecking accept-new\n"
        )

    def put_in_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have `ssh` mean the one that knows this server and its keys."""
        monkeypatch.setenv("PATH", f"{self.directory}/bin:{os.environ['PATH']}")

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = [str(SSHD), "-D", "-e", "-f", str(self.directory / "sshd_config")]
        process = self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            if line.startswith("Server listening"):
                return
            lines.append(line)
        self.stop()
        pytest.skip(f"sshd does not start here: {''.join(lines).strip()}")

    def stop(self) -> None:
        """End the sshd; connections that stand are not touched."""
        if self.process is not None:
            self.process.kill()
            with self.process:
                pass
            self.process = None


@pytest.fixture(scope="module")
def module_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here; install an OpenSSH client")
    if SSHD is None:
        pytest.skip("no sshd here; install an OpenSSH server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # an sshd of root's will not start without
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def sshd(module_sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """An sshd that runs, and an `ssh` that finds it."""
    module_sshd.put_in_path(monkeypatch)
    module_sshd.let_in("user")
    return module_sshd


class Teller(CircusPlugin):
    """Tells what comes, and what circusd answers."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.told: queue.SimpleQueue[object] = queue.SimpleQueue()

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.told.put((self.split_data(data)[0], self.call("list")["watchers"]))

    def handle_reconnect(self) -> None:
        self.told.put("reconnected")


@contextlib.contextmanager
def tunnelled(sshd: Sshd, circusd: FakeCircusd) -> Iterator[Arbiter]:
    """Two Tellers on a circusd behind the sshd, both connected."""
    specs = [{"use": Teller, "name": name} for name in ("one", "two")]
    with Arbiter(
        specs, circusd.endpoint, circusd.pubsub_endpoint, ssh_server=sshd.server
    ) as arbiter:
        arbiter.wait(lambda statuses: all(s.connected for s in statuses.values()), PATIENCE)
        circusd.wait_subscribed(2, PATIENCE)
        yield arbiter


def the_ssh(process: psutil.Process | None = None) -> psutil.Process:
    """The one ssh below this process."""
    below = (process or psutil.Process()).children(recursive=True)
    named = []
    for each in below:
        with contextlib.suppress(psutil.NoSuchProcess):  # of another ssh that has just ended
            if each.name() == "ssh":
                named.append(each)
    (found,) = named
    return found


def test_commands_and_events_of_all_plugins_go_through_one_ssh(sshd: Sshd) -> None:
    with FakeCircusd(["web"]) as circusd, tunnelled(sshd, circusd) as arbiter:
        circusd.publish("web", "spawn")
        for name in ("one", "two"):
            assert arbiter.instance(name).told.get(timeout=PATIENCE) == ("web", ["web"])
        assert the_ssh().is_running()


def test_the_death_of_the_tunnel_is_a_disconnect_after_which_plugins_go_on(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Sshd(tmp_path)
    own.put_in_path(monkeypatch)
    with FakeCircusd(["web"]) as circusd, own, tunnelled(own, circusd) as arbiter:
        own.stop()  # until the old subscriptions are gone, or they would be taken for the new ones
        the_ssh().kill()
        circusd.wait_unsubscribed(0, PATIENCE)
        own.start()
        for name in ("one", "two"):
            assert arbiter.instance(name).told.get(timeout=PATIENCE) == "reconnected"
        circusd.wait_subscribed(2, PATIENCE)
        circusd.publish("web", "spawn")
        for name in ("one", "two"):
            assert arbiter.instance(name).told.get(timeout=PATIENCE) == ("web", ["web"])


def test_an_ssh_server_that_is_away_is_tried_until_it_is_back(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = Sshd(tmp_path)
    own.put_in_path(monkeypatch)
    with FakeCircusd(["web"]) as circusd, own, tunnelled(own, circusd) as arbiter:
        own.stop()
        the_ssh().kill()
        arbiter.wait(lambda _: "Connection refused; next try in" in caplog.text, PATIENCE)
        arbiter.wait(lambda statuses: not any(s.connected for s in statuses.values()), PATIENCE)
        own.start()
        arbiter.wait(lambda statuses: all(s.connected for s in statuses.values()), PATIENCE)


def test_an_ssh_that_is_not_let_in_is_an_error_in_its_own_words(sshd: Sshd) -> None:
    sshd.let_in("stranger")
    with (
        pytest.raises(HostError, match=rf"through {sshd.server}: .*Permission denied \(publickey"),
        Arbiter([Teller], ssh_server=sshd.server),
    ):
        pass


def test_an_ssh_server_that_is_not_there_is_an_error() -> None:
    port = free_endpoints(1)[0].rpartition(":")[2]
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here; install an OpenSSH client")
    with (
        pytest.raises(HostError, match="Connection refused"),
        open_tunnel(f"127.0.0.1:{port}", DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT, None),
    ):
        pass


def test_a_missing_ssh_command_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(HostError, match="install an OpenSSH client"),
        open_tunnel("host", DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT, None),
    ):
        pass


def test_an_endpoint_inside_this_process_cannot_be_tunnelled(sshd: Sshd) -> None:
    config = HostConfig(endpoint="inproc://commands", ssh_server=sshd.server)
    with (
        pytest.raises(HostError, match="inproc://commands cannot be tunnelled"),
        open_tunnel(config.ssh_server or "", config.endpoint, config.pubsub_endpoint, None),
    ):
        pass


def test_nobody_else_on_this_machine_can_use_the_tunnel_and_nothing_of_it_stays(
    sshd: Sshd,
) -> None:
    with FakeCircusd() as circusd:
        config = HostConfig((), circusd.endpoint, circusd.pubsub_endpoint, 5.0, sshd.server)
        with open_tunnel(
            config.ssh_server or "", config.endpoint, config.pubsub_endpoint, None
        ) as link:
            directory = Path(link.endpoint.removeprefix("ipc://")).parent
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert {path.name for path in directory.iterdir()} == {"commands", "events"}
            ssh = the_ssh()
        assert not directory.exists()
        assert psutil.wait_procs([ssh], PATIENCE)[1] == []


def test_the_tunnel_ends_with_a_host_that_is_killed(sshd: Sshd, tmp_path: Path) -> None:
    arguments = f"{sshd.server!r}, {DEFAULT_ENDPOINT!r}, {DEFAULT_PUBSUB_ENDPOINT!r}, None"
    program = (
        "from circusplug._wire.ssh_tunnel import open_tunnel\n"
        f"with open_tunnel({arguments}):\n"
        "    print('up', flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # it cannot clean up behind itself
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"up\n"
        ssh = the_ssh(psutil.Process(host.pid))
        host.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([ssh], PATIENCE)[1] == []


def test_a_plugin_started_by_hand_has_a_tunnel_of_its_own(sshd: Sshd) -> None:
    class Once(Teller):
        def handle_init(self) -> None:
            # Without its tunnel it would reach this circusd as well.
            self.told.put((the_ssh().is_running(), self.call("list")["watchers"]))
            self.stop()

    with FakeCircusd(["web"]) as circusd:
        plugin = Once(circusd.endpoint, circusd.pubsub_endpoint, ssh_server=sshd.server)
        ends = plugin.endpoint, plugin.pubsub_endpoint
        plugin.start()
        assert plugin.told.get(timeout=PATIENCE) == (True, ["web"])
        assert (
            (plugin.endpoint, plugin.pubsub_endpoint)
            == ends
            == (
                circusd.endpoint,
                circusd.pubsub_endpoint,
            )
        )


@pytest.mark.parametrize(
    ("server", "arguments"),
    [
        ("host", ["--", "host"]),
        ("me@host", ["--", "me@host"]),
        ("me@host:2222", ["-p", "2222", "--", "me@host"]),
        ("host:22", ["-p", "22", "--", "host"]),
        ("::1", ["--", "::1"]),
        ("[::1]", ["--", "::1"]),
        ("me@[fe80::1]:22", ["-p", "22", "--", "me@fe80::1"]),
    ],
)
def test_an_ssh_server_is_written_as_for_circus(server: str, arguments: list[str]) -> None:
    assert destination(server) == arguments


@pytest.mark.parametrize("server", ["me@", "host:port", "two words", "me@host:22:23", ""])
def test_what_is_no_ssh_server_is_refused(server: str) -> None:
    with pytest.raises(HostError, match="is not USER@HOST"):
        destination(server)
