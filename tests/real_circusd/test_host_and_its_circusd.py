# What ties circusplug.Host to the circusd that runs it: it ends with it, and logs where it says.

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from circusd_real import RealCircusd, free_endpoints
from command import assert_ends
from patience import PATIENCE, wait_while
from record import USE, Record, by_circusd, host_ini, see_event, started

from circusplug._migrate.plan import apply, plan
from circusplug.testing import FakeCircusd

#: Circus's starter, and for how long a circusd that is not there is looked for, in seconds.
STARTER = (
    "from circusplug._host import circusd_watch; circusd_watch.CONNECT_WAIT = {wait}; "
    "from circus import plugins; plugins.main()"
)


@by_circusd
@pytest.mark.parametrize("options", [{}, {"shell": True}], ids=["plain", "shell"])
def test_a_host_ends_cleanly_with_a_circusd_that_is_killed_again_and_again(
    record: Record, ours: str, options: dict[str, object]
) -> None:
    isolated = f"[plugin:isolated]\nuse = {ours}.Recorder\nfilename = {record.path}\n"
    isolated += "isolate = yes\nwatchers = nobody\n"
    section = {"use": USE, "config": host_ini(record, ours, isolated), **options}
    with RealCircusd({"web": {}}, plugins={"circusplug": section}) as circusd:
        for life in range(2):
            if life:
                circusd.start()
            began = [record.next(), record.next()]
            pids = [int(str(words[1])) for words in began if words is not None]
            assert len(pids) == 2
            see_event(circusd, record)
            (web,) = circusd.call("list", name="web")["pids"]
            os.kill(circusd.pid, signal.SIGKILL)
            os.kill(web, signal.SIGKILL)  # what stock circusd leaves behind
            record.until("stop")
            record.until("stop")
            assert_ends(*pids)
            circusd.kill()  # as far as it is still to be reaped


def orphan(circusd: tuple[str, str], config: Path, ours_log: Path, wait: float) -> None:
    """Start a host as circusd does, with a parent that has ended before it looks."""
    starter = STARTER.format(wait=wait)
    command = [sys.executable, "-c", starter, "--endpoint", circusd[0], "--pubsub", circusd[1]]
    command += ["--config", f"config:{config}:::name:plugin:circusplug"]
    command += ["--log-output", str(ours_log), USE]
    subprocess.run(["sh", "-c", 'setsid "$@" &', "sh", *command], check=True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A host's log; reading it to its end waits for the host's."""
    os.mkfifo(tmp_path / "host.log")
    return tmp_path / "host.log"


def test_a_host_whose_circusd_has_ended_before_it_looked_ends_too(
    record: Record, ours: str, log: Path
) -> None:
    first, second = "ipc:///nonexistent/commands", "ipc:///nonexistent/events"
    orphan((first, second), host_ini(record, ours), log, wait=0.1)
    said = log.read_text()
    assert f"no circusd is at {first}: the one that started this host has ended" in said
    assert "all plugins are stopped" in said


def test_a_host_ends_when_another_circusd_has_taken_the_place_of_its_own(
    record: Record, ours: str, log: Path
) -> None:
    with FakeCircusd() as circusd:
        circusd.reply("list", {"pids": [1]}, name="plugin:circusplug")
        ends = circusd.endpoint, circusd.pubsub_endpoint
        orphan(ends, host_ini(record, ours), log, wait=PATIENCE)
        said = log.read_text()
    assert f"circusd at {circusd.endpoint} is not the one that started this host" in said
    assert "all plugins are stopped" in said


@by_circusd
def test_circusds_reloadconfig_leaves_a_migrated_hosts_log_where_it_was(
    record: Record, ours: str, tmp_path: Path
) -> None:
    log = tmp_path / "circus.log"
    section = {"use": f"{ours}.Recorder", "filename": record.path, "watchers": "web"}
    before = RealCircusd({"web": {}}, plugins={"recorder": section}, logoutput=log)
    before.endpoint, before.pubsub_endpoint = free_endpoints(2)
    (tmp_path / "circus.ini").write_text(before.ini())
    apply(plan(tmp_path / "circus.ini"))
    section = {"use": USE, "config": tmp_path / "plugins.ini"}
    with RealCircusd({"web": {}}, plugins={"circusplug": section}, logoutput=log) as circusd:
        first = record.next()
        # It may be busy.
        wait_while(lambda: circusd.call("reloadconfig", waiting=True)["status"] != "ok")
        record.until("stop")
        second = record.next()
        circusd.terminate()
    assert first is not None
    assert second is not None
    assert first != second
    for words in (first, second):
        assert f" circusplug[{words[1]}] [INFO] hosting recorder" in log.read_text()


def test_sighup_changes_the_log_and_an_output_that_cannot_be_opened_changes_nothing(
    ours: str, tmp_path: Path
) -> None:
    path = tmp_path / "plugins.ini"
    plugin = f"[plugin:one]\nuse = {ours}.Positional\nword = %s\n"
    for name in ("first.log", "second.log"):
        os.mkfifo(tmp_path / name)
    with FakeCircusd() as circusd:
        text = (
            f"[circus]\nlogoutput = {tmp_path}/%s\nloglevel = %s\n[circusplug]\nlog_format = %s\n"
        )
        path.write_text(text % ("first.log", "info", "text") + plugin % "x")
        with started(circusd, path) as process, open(tmp_path / "first.log") as first:
            wait_for(first, "[INFO] hosting one")
            path.write_text(text % ("no/such/place.log", "info", "text") + plugin % "y")
            process.send_signal(signal.SIGHUP)
            wait_for(first, "[ERROR] not reloaded, all stays as it was: 'logoutput': cannot log to")
            path.write_text(text % ("second.log", "error", "json") + plugin % "x")
            process.send_signal(signal.SIGHUP)
            with open(tmp_path / "second.log") as second:
                path.write_text(text % ("second.log", "info", "json") + plugin % "x")
                process.send_signal(signal.SIGHUP)
                wait_for(second, '"message": "reloaded: nothing has changed"')
                process.terminate()
                assert process.wait(PATIENCE) == 0
    assert not [command for command in circusd.commands if "y" in str(command.properties)]


def wait_for(log: object, part: str) -> None:
    assert any(part in line for line in log), f"the log ends without {part!r}"  # type: ignore[attr-defined]
