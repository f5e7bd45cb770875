# Under stock circusd: the whole host as one plugin, and a plugin of ours as one of Circus's.
# What a plugin sees comes out of a named pipe, so that a test can wait for it (record.py).

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from circusd_real import RealCircusd, free_endpoints
from command import assert_ends
from patience import PATIENCE, wait_while
from record import USE, Record, by_circusd, host_command, host_ini, see_event, started
from wire import Wire

from circusplug import Arbiter, Host, PluginSpec
from circusplug.testing import FakeCircusd

#: A watcher whose processes circusd kills, which is one more event, only if something is broken.
WEB = {"graceful_timeout": 30}


@pytest.fixture(params=["circusd is terminated", "its watcher is stopped", "circusd is told quit"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@by_circusd
def test_a_stock_circusd_starts_and_stops_a_host_and_a_plugin_of_ours_cleanly(
    record: Record, ours: str, end: str, tmp_path: Path
) -> None:
    """The host has all plugins of its file in one process."""
    more = f"[plugin:other]\nuse = circus_like_plugins.Positional\nname = {ours}\n"
    with Record(tmp_path / "mine") as mine:
        plugins = {
            "circusplug": {"use": USE, "config": host_ini(record, ours, more)},
            "mine": {"use": f"{ours}.Recorder", "filename": mine.path, "watchers": "web"},
        }
        with RealCircusd({"web": {}}, plugins=plugins) as circusd:
            first = record.next()
            assert first is not None
            assert psutil.Process(first[1]).ppid() == circusd.pid  # type: ignore[arg-type]
            assert psutil.Process(first[1]).children() == []  # type: ignore[arg-type]
            assert mine.next() is not None
            see_event(circusd, record)
            see_event(circusd, mine)
            if end == "circusd is terminated":
                os.kill(circusd.pid, signal.SIGTERM)
            elif end == "circusd is told quit":
                circusd.call("quit")
            else:
                for name in plugins:
                    circusd.call("stop", name=f"plugin:{name}", waiting=True)
            record.until("stop")
            mine.until("stop")
            circusd.terminate()
            assert mine.next(0) is None


@by_circusd
def test_the_hosts_log_goes_where_circusds_goes_and_names_the_plugins(
    record: Record, ours: str, tmp_path: Path
) -> None:
    log = tmp_path / "circus.log"
    more = "[plugin:failing]\nuse = circus_like_plugins.Failing\n"
    section = {"use": USE, "config": host_ini(record, ours, more)}
    with RealCircusd({"web": {}}, plugins={"circusplug": section}, logoutput=log) as circusd:
        first = record.next()
        assert first is not None
        start = rf"^\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d %s\[{first[1]}\] "
        failure = start % "failing" + r"\[ERROR\] .*nothing to look after$"
        while not re.search(failure, log.read_text(), re.MULTILINE):
            see_event(circusd, record)
        circusd.terminate()
    text = log.read_text()
    assert re.search(
        start % "circusplug" + r"\[INFO\] hosting failing, recorder$", text, re.MULTILINE
    )
    assert f"circus[{circusd_pid(text)}] [INFO] web started" in text


@by_circusd
def test_the_hosts_log_goes_on_when_circusd_reads_its_file_again(
    record: Record, ours: str, tmp_path: Path
) -> None:
    """By which circusd starts its plugins again, and forgets where they shall log to."""
    path, log = host_ini(record, ours), tmp_path / "circus.log"
    path.write_text(f"[circus]\nlogoutput = {log}\n{path.read_text()}")
    section = {"use": USE, "config": path}
    with RealCircusd({"web": {}}, plugins={"circusplug": section}, logoutput=log) as circusd:
        assert record.next() is not None
        circusd.call("reloadconfig", waiting=True)
        record.until("stop")
        assert record.next() is not None
        circusd.terminate()
    text = log.read_text()
    assert text.count("[INFO] hosting recorder") == text.count("all plugins are stopped") == 2


def circusd_pid(log: str) -> str:
    found = re.search(r"Starting master on pid (\d+)", log)
    assert found is not None
    return found[1]


def test_a_host_lives_in_a_session_whose_leader_has_ended(ours: str, tmp_path: Path) -> None:
    """As where a shell has started it by hand, in the background, and has ended."""
    path, log = tmp_path / "plugins.ini", tmp_path / "log"
    path.write_text(f"[plugin:one]\nuse = {ours}.Positional\nword = x\n")
    with FakeCircusd() as circusd:
        shell = ["sh", "-c", '"$@" >"$0" 2>&1 & echo $!', log, *host_command(circusd, path)]
        out = subprocess.run(shell, stdout=subprocess.PIPE, start_new_session=True, check=True)
        host = int(out.stdout)
        try:
            circusd.wait_command("say", timeout=PATIENCE)
            os.kill(host, signal.SIGTERM)
            assert_ends(host)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(host, signal.SIGKILL)
    assert "has ended" not in log.read_text()


def test_sighup_makes_the_host_read_its_file_again(ours: str, tmp_path: Path) -> None:
    path = tmp_path / "plugins.ini"
    path.write_text(f"[plugin:one]\nuse = {ours}.Positional\nword = before\n")
    with FakeCircusd() as circusd, started(circusd, path) as process:
        circusd.wait_command("say", words=["init", "before", "before", 5.0], timeout=PATIENCE)
        path.write_text(path.read_text().replace("before", "after"))
        process.send_signal(signal.SIGHUP)
        circusd.wait_command("say", words=["init", "after", "after", 5.0], timeout=PATIENCE)
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_what_the_hosts_file_says_counts_but_for_where_circusd_is(
    ours: str, tmp_path: Path
) -> None:
    """Its check_delay, its log, and plugins beside it and on its path."""
    for name in ("beside", "elsewhere"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / f"found_{name}.py").write_text(f"from {ours} import Positional as Found\n")
    path, log = tmp_path / "beside" / "plugins.ini", tmp_path / "host.log"
    path.write_text(
        f"[circus]\nendpoint = tcp://127.0.0.1:1\ncheck_delay = 3\nlogoutput = {log}\n"
        f"[circusplug]\npython_path = {tmp_path}/elsewhere\n"
        "[plugin:one]\nuse = found_beside.Found\nword = one\n"
        "[plugin:two]\nuse = found_elsewhere.Found\nword = two\n"
    )
    with FakeCircusd() as circusd, started(circusd, path) as process:
        for word in ("one", "two"):
            circusd.wait_command("say", words=["init", word, word, 3.0], timeout=PATIENCE)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert "hosting one, two" in log.read_text()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "plugins.ini: no such file"),
        ("[plugin:one]\nfilename = x\n", "plugins.ini:1: [plugin:one]: 'use' is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_in_the_log_and_a_failure(
    text: str | None, complaint: str, ours: str, tmp_path: Path
) -> None:
    path = tmp_path / "plugins.ini"
    if text is not None:
        path.write_text(text)
    with FakeCircusd() as circusd, started(circusd, path) as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    errors = [line for line in lines if "[ERROR]" in line]
    assert len(errors) == 1
    assert complaint in errors[0]
    assert "Traceback" not in "".join(lines)


def test_a_section_without_config_is_told_what_is_missing(ours: str) -> None:
    with FakeCircusd() as circusd, started(circusd, "") as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert "[plugin:circusplug]: 'config' is missing" in process.stderr.read()


def test_a_host_is_not_hosted_by_another() -> None:
    spec = PluginSpec.from_options({"use": Host, "name": "inner", "host.restart": "never"})
    with (
        FakeCircusd() as circusd,
        Arbiter([spec], circusd.endpoint, circusd.pubsub_endpoint) as arbiter,
    ):
        statuses = arbiter.wait(lambda statuses: statuses["inner"].state == "failed")
    assert "cannot be hosted by another" in str(statuses["inner"].last_error)


@contextlib.contextmanager
def run_host(path: Path, endpoints: list[str]) -> Iterator[None]:
    """`circusplug run`, beside a circusd."""
    with RealCircusd({"web": WEB}) as circusd:
        options = ("--endpoint", circusd.endpoint, "--pubsub", circusd.pubsub_endpoint)
        endpoints[:] = [circusd.endpoint, circusd.pubsub_endpoint]
        with command("run", path, *options):
            yield
        circusd.terminate()


@contextlib.contextmanager
def up_host(path: Path, endpoints: list[str]) -> Iterator[None]:
    """`circusplug up`, which starts the circusd."""
    with command("up", path):
        yield


@contextlib.contextmanager
def section_host(path: Path, endpoints: list[str]) -> Iterator[None]:
    """One section of a stock circusd."""
    section = {"use": USE, "config": path}
    with RealCircusd({"web": WEB}, plugins={"circusplug": section}) as circusd:
        endpoints[:] = [circusd.endpoint, circusd.pubsub_endpoint]
        yield
        circusd.terminate()


@contextlib.contextmanager
def command(*arguments: object) -> Iterator[None]:
    program = "import sys; from circusplug._cli.main import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)])
    try:
        yield
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


class Endpoints:
    """A circusd's, for a Wire."""

    def __init__(self, endpoint: str, pubsub_endpoint: str) -> None:
        self.endpoint = endpoint
        self.pubsub_endpoint = pubsub_endpoint


@by_circusd
def test_the_same_file_gives_the_same_event_log_in_all_three_ways(
    ours: str, tmp_path: Path
) -> None:
    logs = []
    for host in (run_host, up_host, section_host):
        endpoints = free_endpoints(2)
        directory = tmp_path / host.__name__
        directory.mkdir()
        circus = f"[circus]\nendpoint = {endpoints[0]}\npubsub_endpoint = {endpoints[1]}\n"
        watcher = "[watcher:web]\ncmd = sleep 1000\ngraceful_timeout = 30\n"
        with Record(directory / "record") as record:
            with host(host_ini(record, ours, circus + watcher), endpoints):
                assert record.next() is not None
                with Wire(Endpoints(*endpoints)) as wire:
                    logs.append(drive(wire, record))
            record.until("stop")  # in the third way web may be stopped before
    assert logs[0] == logs[1] == logs[2]
    assert len(logs[0]) > 10


def drive(wire: Wire, record: Record) -> list[list[object]]:
    """Have things happen to web; returns what the plugin makes of them."""
    wire.call("set", name="web", options={"max_retry": 5}, waiting=True)
    while record.next(0.2) != ["web", "updated"]:
        wire.call("set", name="web", options={"max_retry": 5}, waiting=True)
    wait_while(lambda: wire.call("status", name="web")["status"] != "active")
    for order in ("stop", "start"):  # what was asked for too often is over after that
        while wire.call(order, name="web", waiting=True)["status"] != "ok":
            pass  # circusd has not finished with its first start
        record.until("web", order)
    for order in ("restart", "incr", "decr", "stop", "start"):
        reply = wire.call(order, name="web", waiting=True)
        assert reply["status"] == "ok", reply
    wire.call("set", name="web", options={"max_retry": 5}, waiting=True)
    return record.until("web", "updated")
