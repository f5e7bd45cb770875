# HttpObserver: what counts as well, what it restarts, and servers that do as no server should.

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from bundled import Journal, do, given
from fixture_types import Run
from patience import PATIENCE
from web_servers import for_ever, half, serving, talking, url

from circusplug import SpecError
from circusplug.plugins import HttpObserver
from circusplug.plugins._http_probe import HttpProbe
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture(autouse=True)
def no_certificates_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """To load them takes longer than most tests here, and no server here has one of theirs."""
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)


@pytest.fixture
def observe(run_plugin: Run, fake_circusd: FakeCircusd) -> Callable[..., RunningPlugin]:
    """Runs an HttpObserver that restarts web, and looks only when it is told to."""
    fake_circusd.add_watcher("web")

    def run(**options: Any) -> RunningPlugin:
        given = {"restart_on_error": "web", "loop_rate": 1e6, "timeout": PATIENCE, **options}
        return run_plugin(HttpObserver, **given)

    return run


def look(running: RunningPlugin) -> int:
    """Have it look; returns how many restarts it has asked for."""
    do(running, running.plugin.look)
    return len(given(running, "restart"))


@pytest.mark.parametrize(
    ("answer", "options", "well"),
    [
        ((200, "fine"), {}, True),
        ((500, "fine"), {}, False),
        ((404, "fine"), {"expected_status": "200, 400-404"}, True),
        ((200, "fine"), {"expected_status": "404"}, False),
        ((200, "all fine"), {"body_regex": "^all"}, True),
        ((200, "all fine"), {"body_regex": "fine"}, True),
        ((200, "all bad"), {"body_regex": "fine"}, False),
        ((200, ""), {"method": "HEAD"}, True),
    ],
)
def test_what_is_well(
    answer: tuple[int, str],
    options: dict[str, Any],
    well: bool,
    observe: Callable[..., RunningPlugin],
) -> None:
    with serving(answer) as server:
        assert look(observe(check_url=url(server), **options)) == (0 if well else 1)
        assert [(one[0], one[1]) for one in server.asked] == [
            (options.get("method", "GET"), "/page")
        ]


def test_headers_are_sent_and_redirects_followed(observe: Callable[..., RunningPlugin]) -> None:
    with serving((302, "/other?x=1"), (200, "fine")) as server:
        running = observe(check_url=url(server), headers="X-Who: me, Host: shop.example")
        assert look(running) == 0
        assert [path for _, path, _ in server.asked] == ["/page", "/other?x=1"]
        assert {headers["X-Who"] for _, _, headers in server.asked} == {"me"}
        assert server.asked[0][2]["Host"] == "shop.example"


def test_another_server_is_not_told_what_this_one_is(
    observe: Callable[..., RunningPlugin],
) -> None:
    with serving((200, "fine")) as other, serving((302, url(other))) as server:
        assert look(observe(check_url=url(server), headers="Authorization: hush")) == 0
        assert server.asked[0][2]["Authorization"] == "hush"
        assert "Authorization" not in other.asked[0][2]
        assert other.asked[0][2]["User-Agent"] == "circusplug"


def test_five_redirects_of_any_kind_are_followed(observe: Callable[..., RunningPlugin]) -> None:
    redirects = [(status, "/page") for status in (301, 302, 303, 307, 308)]
    with serving(*redirects, (200, "fine")) as server:
        assert look(observe(check_url=url(server))) == 0
        assert len(server.asked) == 6


def test_redirects_without_end_are_a_failure(
    observe: Callable[..., RunningPlugin], journal: Journal
) -> None:
    with serving((302, "/round")) as server:
        assert look(observe(check_url=url(server))) == 1
    journal.wait("more than 5 redirects")


def test_it_takes_so_many_failures_in_a_row(observe: Callable[..., RunningPlugin]) -> None:
    bad, good = (500, ""), (200, "")
    with serving(bad, bad, good, bad, bad, bad, bad, bad, bad) as server:
        running = observe(check_url=url(server), failures=3)
        assert [look(running) for _ in range(9)] == [0, 0, 0, 0, 0, 1, 1, 1, 2]


def test_failures_before_a_start_of_its_watcher_do_not_count(
    observe: Callable[..., RunningPlugin],
) -> None:
    with serving((500, "")) as server:
        running = observe(check_url=url(server), failures=3)
        for number in (1, 2):
            assert look(running) == 0
            running.publish("web", "start")
            running.wait_handled(number, PATIENCE)
        assert [look(running), look(running)] == [0, 0]
        running.publish("other", "start")
        running.publish("web", "stop")
        running.wait_handled(4, PATIENCE)
        assert look(running) == 1


def test_each_page_counts_for_itself_and_several_watchers_are_restarted(
    observe: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("Web 2")
    fake_circusd.add_watcher("other")
    with serving((500, "")) as ill, serving((200, "")) as well:
        running = observe(check_url=f"{url(ill)}, {url(well)}", failures=2, restart_on_error="web*")
        assert look(running) == 0
        assert look(running) == 2
        assert len(well.asked) == 2
    names = {one.properties["name"] for one in fake_circusd.commands if one.command == "restart"}
    assert names == {"web", "web 2"}


def test_while_a_watcher_starts_nothing_is_fetched(
    observe: Callable[..., RunningPlugin], fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("other")
    with serving((500, "")) as server:
        running = observe(check_url=url(server), restart_on_error="web, other", grace=1000)
        running.publish("web", "start")
        running.wait_handled(1, PATIENCE)
        assert look(running) == 0
        assert server.asked == []


def test_while_circusd_does_not_tell_of_its_watchers_nothing_is_fetched(
    observe: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.reply("list", {"status": "error", "reason": "no", "errno": 3})
    with serving((500, "")) as server:
        assert look(observe(check_url=url(server), restart_on_error="web*")) == 0
        assert server.asked == []
    journal.wait("no look this time: list")


def test_a_unix_socket_can_be_asked(
    observe: Callable[..., RunningPlugin], runtime_directory: str
) -> None:
    path = Path(runtime_directory, "http")
    with serving((200, "fine"), path=path) as server:
        running = observe(check_url=f"http+unix://{quote(str(path), safe='')}/page?q=1")
        assert look(running) == 0
        assert server.asked[0][1] == "/page?q=1"
    path.unlink()
    assert look(running) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    ("options", "well"),
    [
        ({}, True),
        ({"certificate_days": 1}, True),
        ({"certificate_days": 9}, True),
        ({"certificate_days": 11}, False),
        ({"ca_file": ""}, False),
        ({"ca_file": "", "verify": "no"}, True),
    ],
)
def test_certificates_are_looked_at(
    options: dict[str, Any],
    well: bool,
    authority: trustme.CA,
    tmp_path: Path,
    observe: Callable[..., RunningPlugin],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssl.cert_time_to_seconds", lambda _: time.time() + 10 * 24 * 3600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving((200, "fine"), context=context) as server:
        given = {"check_url": url(server, "https"), "ca_file": tmp_path / "ca.pem", **options}
        assert look(observe(**given)) == (0 if well else 1)


def test_figures_have_circus_s_names(
    observe: Callable[..., RunningPlugin], udp: socket.socket
) -> None:
    with serving((200, ""), (503, "")) as server:
        running = observe(check_url=url(server), host="127.0.0.1", port=udp.getsockname()[1])
        look(running)
        look(running)
        told = b""
        while b"restart_on_error" not in told:
            told += udp.recv(65536) + b"\n"
    prefix = "circus.http_observer.watcher.http_stats"
    first, *others = told.decode().split()
    assert first.startswith(f"{prefix}.request_time:")
    assert first.endswith("|ms")
    assert others == [
        f"{prefix}.error.503:1|c",
        f"{prefix}.error:1|c",
        f"{prefix}.restart_on_error:1|c",
    ]


def test_a_restart_that_circusd_refuses_is_not_counted(
    observe: Callable[..., RunningPlugin], fake_circusd: FakeCircusd, udp: socket.socket
) -> None:
    fake_circusd.reply("restart", {"status": "error", "reason": "no", "errno": 3})
    with serving((503, "")) as server:
        running = observe(check_url=url(server), host="127.0.0.1", port=udp.getsockname()[1])
        assert look(running) == 1
    do(running, running.plugin.timing, "last", 0.25)
    told = ""
    while "last" not in told:
        told += udp.recv(65536).decode()
    assert told.endswith(".last:250|ms")
    assert "restart_on_error" not in told


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: connection.recv(1000),
        lambda connection: connection.sendall(b"rubbish\r\n\r\n"),
        for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        for_ever(b"HTTP/1.1 200 ", b"x" * 1000),
        for_ever(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 1000),  # a page without end is cut off
        half,
    ],
    ids=["nothing", "rubbish", "headers", "line", "page", "half"],
)
def test_a_server_s_rubbish_is_a_failure_and_no_more(
    talk: Callable[[socket.socket], object], observe: Callable[..., RunningPlugin]
) -> None:
    with talking(talk) as there:
        assert look(observe(check_url=there)) == 1


def test_a_server_that_never_ends_its_answer_is_given_up(
    observe: Callable[..., RunningPlugin], journal: Journal
) -> None:
    gone = threading.Event()

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                if connection.recv(1000) == b"":
                    break
        gone.set()

    with talking(drip) as there:
        assert look(observe(check_url=there, timeout=0.2)) == 1
        journal.wait(f"web: {there}: ")  # whichever time-out it is that ends it
        assert gone.wait(PATIENCE)


def test_a_page_may_hold_bytes_that_are_no_text(observe: Callable[..., RunningPlugin]) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n\xff fine")

    with talking(talk) as there:
        assert look(observe(check_url=there, body_regex="fine")) == 0


def test_one_that_is_not_there_is_a_failure(
    observe: Callable[..., RunningPlugin], udp: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    where = {"host": "127.0.0.1", "port": udp.getsockname()[1]}
    assert look(observe(check_url=f"http://127.0.0.1:{port}/", **where)) == 1
    assert b"http_stats.error.599:1|c" in udp.recv(65536)


def test_how_long_a_fetch_takes_is_told_and_its_time_is_limited_twice(
    observe: Callable[..., RunningPlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving((200, "")) as server:
        probe = HttpProbe(url(server), "GET", {}, PATIENCE, ssl.create_default_context())
        assert 0 <= probe.run().seconds < PATIENCE
    timeouts = []

    async def on_thread(run: Any, _: Any, deadline: float, __: str) -> None:
        timeouts.append((deadline, run.__self__._timeout))
        raise OSError("enough")

    monkeypatch.setattr("circusplug.plugins._http.on_thread", on_thread)
    look(observe(timeout=17))
    assert timeouts == [(17, 17)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"check_url": "ftp://x/"}, "'check_url': 'ftp://x/' is no URL of a web page"),
        ({"check_url": "http:///page"}, "'check_url': 'http:///page' is no URL"),
        ({"check_url": "http://me:hush@x/"}, "'check_url': a login in a URL is not sent; write it"),
        ({"headers": "A: b, nonsense"}, "'headers': number 2 is not NAME: VALUE"),
        ({"headers": ("X: y\nZ: z",)}, "'headers': number 1 is not NAME: VALUE"),
        ({"expected_status": "ok"}, "'expected_status': 'ok' is neither"),
        ({"expected_status": "2000"}, "'expected_status': '2000' is neither"),
        ({"body_regex": "("}, "'body_regex': '\\(' is not a regular expression"),
        ({"ca_file": "/no/such/file"}, "'ca_file': .*No such file"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        HttpObserver(**options)
