# The commands as services of systemd's: what they tell it, with a real socket in place of
# its own; what their log looks like in the journal; and the unit that `circusplug systemd` prints.

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from circusd_real import free_endpoints
from command import PATIENT, Running, environment, plugin, run, run_here, write_ini
from patience import PATIENCE

from circusplug import HostConfig, HostOptions, PluginSpec
from circusplug._cli import systemd_unit
from circusplug.testing import FakeCircusd

#: A plugin that tells the test's socket what happens to it, among what its host tells systemd.
WITNESS = """\
import os, socket
from circusplug import CircusPlugin

class Witness(CircusPlugin):
    def tell(self, text):
        address = self.config["to"].replace("@", "\\0")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.sendto(f"{self.config['name']} {text}".encode(), address)

    def handle_init(self):
        mine = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
        self.tell(f"init {sorted(mine)}")

    def handle_recv(self, data):
        with open(self.config["gate"]) as gate:
            gate.read()
        self.tell("goes on")

    def handle_stop(self):
        self.tell("stop")
"""


class Systemd:
    """Listens in its place.

    Attributes:
        address: For NOTIFY_SOCKET.
        told: What it was told so far, a datagram each.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(address.replace("@", "\0"))

    def wait_for(self, text: str, since: int | None = None) -> str:
        """Listen until a datagram that holds *text* has come; returns that one.

        Args:
            text: What to wait for.
            since: From which of those that were heard on one counts; None: only a new one does.
        """
        heard = len(self.told) if since is None else since
        while True:
            for words in self.told[heard:]:
                if text in words:
                    return words
            heard = len(self.told)
            self.told.append(self._socket.recv(4096).decode())

    @property
    def words(self) -> list[str]:
        """What it was told, but for the status and the watchdog."""
        lines = "\n".join(self.told).splitlines()
        return [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG="))]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    abstract = request.param == "abstract"
    listening = Systemd(f"@circusplug-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    yield listening
    listening.close()


one_kind = pytest.mark.parametrize("systemd", ["path"], indirect=True)


def service(systemd: Systemd, **more: str) -> dict[str, str]:
    return environment(NOTIFY_SOCKET=systemd.address, **more)


def witness(systemd: Systemd, name: str, **options: str) -> str:
    return plugin(name, "witness.Witness", to=systemd.address, **options)


def write_witness(directory: Path, circusd: FakeCircusd, *sections: str) -> Path:
    (directory / "witness.py").write_text(WITNESS)
    return write_ini(directory, circusd.endpoint, circusd.pubsub_endpoint, *sections)


# What is told


def test_it_is_ready_when_all_plugins_had_their_chance_and_tells_of_its_stop(
    systemd: Systemd, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    path = write_witness(
        tmp_path, fake_circusd,
        witness(systemd, "a"),
        witness(systemd, "b", isolate="true", host_uid=str(os.geteuid())),
        plugin("c", "tellers.Unborn", host_max_restarts="0"),
    )  # fmt: skip
    env = service(systemd, WATCHDOG_USEC="60000000", WATCHDOG_PID="1")
    with Running(tmp_path, "run", path, program=PATIENT, env=env) as command:
        systemd.wait_for("READY=1")
        first = systemd.words
        systemd.wait_for("STATUS=3 plugins: 2 running, 1 failed", since=0)
        command.signal(signal.SIGTERM)
        systemd.wait_for("a stop")
        assert command.end() == 0
    assert sorted(first) == ["READY=1", "plugin:a init []", "plugin:b init []"]
    assert systemd.words[2:] == ["READY=1", "STOPPING=1", "plugin:b stop", "plugin:a stop"]
    assert "WATCHDOG" not in "".join(systemd.told)


@one_kind
def test_a_reload_is_told_with_its_time_and_its_end_even_if_it_fails(
    systemd: Systemd, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    path = write_witness(tmp_path, fake_circusd, witness(systemd, "a"))
    with Running(tmp_path, "run", path, env=service(systemd)) as command:
        systemd.wait_for("READY=1")
        for section in (witness(systemd, "b"), "[plugin:c]\nuse = nowhere.Nothing\nisolate = 7\n"):
            with path.open("a") as file:
                file.write(section)
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            command.signal(signal.SIGHUP)
            reloading = systemd.wait_for("RELOADING=1").splitlines()
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            moment = re.fullmatch(r"MONOTONIC_USEC=(\d+)", reloading[1])
            assert moment is not None
            assert began <= int(moment[1]) <= now
            systemd.wait_for("READY=1")
        command.wait_for("not reloaded")
        command.interrupt()
        assert command.end() == 0


@one_kind
def test_nothing_that_up_starts_can_speak_for_it(systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    path = write_ini(
        tmp_path, *free_endpoints(2), "[watcher:w]\ncmd = sleep 1000\ncopy_env = true\n",
        witness(systemd, "a"), witness(systemd, "b", isolate="true"),
    )  # fmt: skip
    env = service(systemd, WATCHDOG_USEC="60000000", PYTHONWARNINGS="")
    with Running(tmp_path, "up", path, program=PATIENT, env=env) as command:
        systemd.wait_for("READY=1")
        below = psutil.Process(command.pid).children(recursive=True)
        assert len(below) >= 4  # circusd with its guard, the forkserver, b
        for process in below:
            assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & process.environ().keys()
        command.interrupt()
        systemd.wait_for("STOPPING=1")
        assert command.end() == 0


@one_kind
@pytest.mark.parametrize("watchdog", [True, False])
def test_a_plugin_that_stalls_is_told_of_and_keeps_the_watchdog_hungry(
    watchdog: bool, systemd: Systemd, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    path = write_witness(
        tmp_path, fake_circusd,
        witness(systemd, "a", gate=str(gate), host_stall_timeout="0.05"),
    )  # fmt: skip
    env = service(systemd, **{"WATCHDOG_USEC": "20000"} if watchdog else {})
    with Running(tmp_path, "run", path, env=env) as command:
        systemd.wait_for("READY=1")
        if watchdog:
            systemd.wait_for("WATCHDOG=1")
        fake_circusd.wait_subscribed(timeout=PATIENCE)
        fake_circusd.publish("w", "spawn", process_pid=1)
        systemd.wait_for("STATUS=1 plugin: 1 stalled")
        since = len(systemd.told)
        command.wait_for("has been busy with one callback")
        gate.write_text("")
        systemd.wait_for("goes on")
        assert systemd.told[since:] == ["plugin:a goes on"]
        if watchdog:
            systemd.wait_for("WATCHDOG=1")
        systemd.wait_for("STATUS=1 plugin: 1 running", since)
        command.interrupt()
        assert command.end() == 0


@one_kind
@pytest.mark.parametrize("gone", [True, False])
def test_a_socket_that_nobody_reads_does_not_hold_it_up(
    gone: bool, systemd: Systemd, fake_circusd: FakeCircusd, tmp_path: Path
) -> None:
    if gone:
        systemd.close()
    path = write_ini(tmp_path, fake_circusd.endpoint, fake_circusd.pubsub_endpoint, plugin("a"))
    env = service(systemd, WATCHDOG_USEC="2000")
    with Running(tmp_path, "run", path, env=env) as command:
        command.wait_for("plugin:a: init")
        for _ in range(20):  # more than the socket has room for, if there is one
            command.signal(signal.SIGHUP)
            command.wait_for("reloaded: nothing has changed", _ + 1)
        command.interrupt()
        assert command.end() == 0


# The journal


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_line_to_the_journal_has_its_priority_and_no_time(
    log_format: str, tmp_path: Path, fake_circusd: FakeCircusd
) -> None:
    own = f"[circusplug]\nexit_when_done = yes\nlog_format = {log_format}\n"
    path = write_ini(
        tmp_path, fake_circusd.endpoint, fake_circusd.pubsub_endpoint, own,
        plugin("a", "tellers.Unborn", host_max_restarts="0"),
        plugin("b", "tellers.Unborn", host_max_restarts="0", isolate="true"),
    )  # fmt: skip
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        env = environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        done = run(tmp_path, "run", path, stderr=journal, env=env, timeout=PATIENCE)
        journal.seek(0)
        lines = journal.read().splitlines()
    assert done.returncode == 1
    assert [line for line in lines if not re.match(r"<[346]>\S", line.replace("> ", ">x"))] == []
    assert lines[-1].startswith("<3>circusplug: no plugin is left that runs")
    if log_format == "text":
        assert re.match(r"<6>circusplug\[\d+\] \[INFO\] hosting a, b", lines[0])
        assert "<3>RuntimeError: no good" in lines
        assert "<3>[b] RuntimeError: no good" in lines


# The unit


_TIMES = ("TimeoutStart", "TimeoutStop", "Watchdog")


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    directory = tmp_path / 'it\'s 100% "$HOME" \\x'
    directory.mkdir()
    own = "[circusplug]\nstop_timeout = 20.5\n"
    (tmp_path / "logs").mkdir()
    isolated = plugin("b", isolate="true", host_stdout=f"{tmp_path}/logs/b")
    return write_ini(directory, *free_endpoints(2), own, plugin("a"), isolated)


@pytest.mark.parametrize("options", [[], ["--up"]])
def test_systemd_has_nothing_to_say_against_the_unit(
    options: list[str], ini: Path, tmp_path: Path
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = run_here(tmp_path, "systemd", *options, ini)
    assert (done.returncode, done.stderr) == (0, "")
    unit = tmp_path / "host.service"
    unit.write_text(done.stdout)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    ours = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, ours) == (0, [])


@pytest.mark.parametrize("options", [[], ["--up"]])
def test_the_unit_says_what_to_run_and_how_long_it_may_take(
    options: list[str], ini: Path, tmp_path: Path
) -> None:
    done = run_here(tmp_path, "systemd", *options, ini)
    assert (done.returncode, done.stderr) == (0, "")
    said = settings(done.stdout)
    command = "up" if options else "run"
    file = str(ini).replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    assert said["ExecStart"].endswith(f' -m circusplug {command} "{file}"')
    assert Path(said["ExecStart"].split()[0]).is_absolute()
    assert said["WorkingDirectory"] == str(ini.parent).replace("%", "%%")
    assert (said["Type"], said["NotifyAccess"]) == ("notify", "main")
    assert said["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (said["KillMode"], said["Restart"]) == ("mixed", "on-failure")
    assert (said["WatchdogSignal"], said["OOMPolicy"]) == ("SIGQUIT", "continue")
    after = "network-online.target" + " circusd.service" * (command == "run")
    assert (said["After"], said["Wants"]) == (after, "network-online.target")
    # Each has to last longer than what it ends: 20.5 s for the plugins, 30 for circusd's start.
    start, stop, watchdog = (int(said[f"{what}Sec"]) for what in _TIMES)
    assert (start, stop) == ((120, 56) if command == "up" else (90, 36))
    assert watchdog == 60 + 2 * 20.5
    assert said["ReadWritePaths"].endswith(f" -{tmp_path}/logs")
    assert ("NoNewPrivileges" in said) == (command == "run")


def test_what_may_last_for_ever_has_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "[circusplug]\nstop_timeout = inf\ncircusd_timeout = inf\n"
    path = write_ini(tmp_path, *free_endpoints(2), own)
    assert systemd_unit.print_unit(str(path), with_circusd=True) == 0
    said = settings(capsys.readouterr().out)
    assert [said[f"{what}Sec"] for what in _TIMES] == ["infinity"] * 3


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ("-", "-/a"),
        ("stdout", "-/a"),
        ("syslog:///dev/log", "-/a"),
        ("/dev/stderr", "-/a"),
        ("/var/log/x/host.log", "-/a -/var/log/x"),
        ("logs/host.log", "-/a -/a/logs"),
        ("~/host.log", "-/a -/home/me"),
    ],
)
def test_the_directories_of_all_logs_may_be_written(
    output: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = HostConfig(logoutput=output)
    assert " ".join(f"-{place}" for place in systemd_unit._written("/a/b.ini", config)) == written
    files = HostOptions(stdout="/o/out", stderr="/e/err")
    config = HostConfig((PluginSpec("p", "a.B", isolate=True, host=files),))
    assert systemd_unit._written("/a/b.ini", config) == ["/a", "/o", "/e"]


def test_the_unit_is_for_the_user_who_asks_but_root(
    ini: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for uid, user in ((0, None), (1, "daemon"), (4_000_000, "4000000")):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        assert systemd_unit.print_unit(str(ini), with_circusd=False) == 0
        assert settings(capsys.readouterr().out).get("User") == user


def test_a_file_that_would_not_run_gets_no_unit(tmp_path: Path) -> None:
    path = write_ini(tmp_path, *free_endpoints(2), plugin("a", "circusplug.Host"))
    (tmp_path / "a\nb.ini").write_text("[plugin:a]\nuse = m.C\n")
    for name, why in ((path, "stands for a host"), ("absent.ini", "absent.ini"), ("a\nb.ini", "")):
        done = run_here(tmp_path, "systemd", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        assert why in done.stderr
