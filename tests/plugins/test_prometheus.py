# Prometheus: what a scrape over a real socket gets, what it costs circusd, and who may ask.

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import scrapes
from bundled import Journal, do, given
from fixture_types import Run
from patience import PATIENCE

from circusplug import SpecError
from circusplug.plugins import Prometheus
from circusplug.testing import FakeCircusd, RunningPlugin


@pytest.fixture
def scraper(run_plugin: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunningPlugin]:
    """Runs the plugin at a free port; what it has asked for is never used again."""
    monkeypatch.setattr("circusplug.plugins._prometheus._FRESH", 0.0)
    return lambda **options: run_plugin(Prometheus, port=0, timeout=PATIENCE, **options)


def get(running: RunningPlugin, **headers: str) -> tuple[bytes, Any]:
    return scrapes.get(running.plugin.url, **headers)


def scrape(running: RunningPlugin) -> dict[str, float]:
    return scrapes.scrape(running.plugin.url)


@contextlib.contextmanager
def client(running: RunningPlugin, request: bytes = b"") -> Iterator[socket.socket]:
    where = urlsplit(running.plugin.url)
    address = where.hostname, where.port
    with socket.create_connection(address, PATIENCE) as sock:  # type: ignore[arg-type]
        sock.sendall(request)
        yield sock


def read(sock: socket.socket) -> bytes:
    found = b""
    while more := sock.recv(65536):
        found += more
    return found


def test_a_watcher_s_state_and_figures_are_gauges(scraper: Run, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("My App", numprocesses=2)
    fake_circusd.set_stats("My App", cpu=50.0, mem_info1="2M", age=7.5)
    fake_circusd.set_stats("My App", fake_circusd.pids("My App")[1], age=2.5)
    fake_circusd.add_watcher("idle", numprocesses=0)
    fake_circusd.add_watcher("plugin:x")
    fake_circusd.add_watcher("half \ud800")
    found = scrape(scraper())
    assert found["circus_watcher_processes{watcher=half ?}"] == 1
    assert found["circus_up{}"] == 1
    state = "circus_watcher_state{watcher=My App,circus_watcher_state="
    assert [found[f"{state}{word}}}"] for word in ("active", "starting", "stopped")] == [1, 0, 0]
    assert found["circus_watcher_processes{watcher=My App}"] == 2
    assert found["circus_watcher_processes{watcher=idle}"] == 0
    assert found["circus_watcher_cpu_ratio{watcher=My App}"] == 1
    assert found["circus_watcher_resident_memory_bytes{watcher=My App}"] == 4 * 1024**2
    assert found["circus_watcher_age_seconds{watcher=My App}"] == 7.5
    assert "circus_watcher_age_seconds{watcher=idle}" not in found
    assert not [name for name in found if "plugin:x" in name]


def test_events_deaths_and_restarts_are_counters(scraper: Run, fake_circusd: FakeCircusd) -> None:
    fake_circusd.add_watcher("My App")
    running = scraper()
    running.publish("My App", "spawn")  # the first one, nobody's successor
    for code in (3, 255, -9, -40, None, "x", 70000):
        running.publish("My App", "reap", process_pid=7, exit_code=code)
        running.publish("My App", "spawn")
    running.publish("My App", "made_up")
    running.publish("My App", "spawn")  # one more, in nobody's place
    running.wait_handled(17)
    found = scrape(running)
    prefix = "circus_watcher_deaths_total{watcher=My App,"
    deaths = {key.removeprefix(prefix): value for key, value in found.items() if prefix in key}
    assert deaths == {
        "exit_code=3}": 1,
        "exit_code=255}": 1,
        "signal=SIGKILL}": 1,
        "signal=40}": 1,
        "exit_code=unknown}": 3,
    }
    assert found["circus_watcher_restarts_total{watcher=My App}"] == 7
    assert found["circus_events_total{watcher=My App,action=spawn}"] == 9
    assert found["circus_events_total{watcher=My App,action=other}"] == 1


def test_a_watcher_that_was_removed_is_forgotten_even_if_nobody_said_so(
    scraper: Run, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.add_watcher("web")
    running = scraper()
    for name in ("web", "removed", "silent"):
        running.publish(name, "spawn")
    running.publish("removed", "remove")
    running.wait_handled(4)
    assert set(running.plugin._counts) == {"web", "silent"}
    scrape(running)
    assert set(running.plugin._counts) == {"web"}


def test_of_how_many_watchers_events_are_counted_is_bounded(
    scraper: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._prometheus._MOST_WATCHERS", 3)
    running = scraper()
    for number in range(5):
        running.publish(f"web{number}", "spawn")
    running.wait_handled(5)
    assert set(running.plugin._counts) == {"web0", "web1", "web2"}


def test_only_the_watchers_asked_for_are_told_of(scraper: Run, fake_circusd: FakeCircusd) -> None:
    for name in ("My App.v1", "web", "other"):
        fake_circusd.add_watcher(name)
    running = scraper(watchers="my app*, web")
    for name in ("My App.v1", "web", "other"):
        running.publish(name, "spawn")
    running.wait_handled(3)
    assert set(running.plugin._counts) == {"my_app.v1", "web"}
    text = get(running)[0].decode()
    assert 'circus_events_total{action="spawn",watcher="My App.v1"} 1.0' in text
    assert '"web"' in text
    assert "other" not in text.replace("others", "")


def test_the_host_s_plugins_have_their_counters_where_circusd_s_door_tells_them(
    scraper: Run, fake_circusd: FakeCircusd
) -> None:
    counters = {"connected": True, "received": 7, "restarts": 2, "errors": "N/A", "lag_sum": 0.5}
    counters["lag_buckets"] = {"0.1": 3, "+Inf": 4}
    fake_circusd.reply("status", {"statuses": {"plugin:logger": "active"}})
    fake_circusd.reply("stats", {"infos": {"plugin:logger": {"12": counters}}})
    found = scrape(scraper())
    assert {key: value for key, value in found.items() if "plugin" in key} == {
        "circusplug_plugin_connected{plugin=logger}": 1,
        "circusplug_plugin_lag_seconds_bucket{plugin=logger,le=0.1}": 3,
        "circusplug_plugin_lag_seconds_bucket{plugin=logger,le=+Inf}": 4,
        "circusplug_plugin_lag_seconds_count{plugin=logger}": 4,
        "circusplug_plugin_lag_seconds_sum{plugin=logger}": 0.5,
        "circusplug_plugin_events_received_total{plugin=logger}": 7,
        "circusplug_plugin_restarts_total{plugin=logger}": 2,
    }


def test_each_counter_of_a_plugin_has_its_own_name(scraper: Run, fake_circusd: FakeCircusd) -> None:
    names = {
        "received": "events_received",
        "handled": "events_handled",
        **{
            name: name
            for name in (
                *("errors", "calls", "conflicts", "casts_failed", "reconnects", "garbage"),
                *("too_large", "restarts", "stalls"),
            )
        },
    }
    figures = {name: number for number, name in enumerate(names)}
    info = {"12": {"connected": False, **figures}}
    fake_circusd.reply("stats", {"infos": {"plugin:logger": info}})
    found = scrape(scraper())
    assert {key: value for key, value in found.items() if "plugin" in key} == {
        "circusplug_plugin_connected{plugin=logger}": 0,
        **{
            f"circusplug_plugin_{metric}_total{{plugin=logger}}": figures[name]
            for name, metric in names.items()
        },
    }


@pytest.mark.parametrize(
    "reply", [{"status": "error", "reason": "busy", "errno": 3}, {"infos": 3, "statuses": 3}]
)
def test_what_circusd_refuses_or_garbles_is_left_out(
    scraper: Run, fake_circusd: FakeCircusd, reply: dict[str, Any]
) -> None:
    fake_circusd.add_watcher("web")
    fake_circusd.reply("stats", reply)
    fake_circusd.reply("status", reply)
    assert scrape(scraper()) == {"circus_up{}": float("status" not in reply)}


@pytest.mark.circusd_leaves
def test_a_circusd_that_is_away_is_down_and_comes_back(
    run_plugin: Run, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._prometheus._FRESH", 0.0)
    fake_circusd.add_watcher("web")
    running = run_plugin(Prometheus, port=0, timeout=0.05)
    fake_circusd.stop()
    running.wait(lambda status: not status.connected)
    assert scrape(running) == {"circus_up{}": 0}
    fake_circusd.start()
    running.wait(lambda status: status.connected)
    running.plugin.options = type(running.plugin.options)(timeout=PATIENCE)
    assert scrape(running)["circus_watcher_processes{watcher=web}"] == 1


def test_two_scrapers_at_once_ask_circusd_once(
    run_plugin: Run, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._prometheus._FRESH", 1e9)
    running = run_plugin(Prometheus, port=0, timeout=PATIENCE)
    scrape_it = running.plugin._scrape
    do(running, lambda: asyncio.gather(scrape_it({}), scrape_it({})))
    assert given(running, "stats", "status") in (["stats", "status"], ["status", "stats"])


def test_what_circusd_has_said_is_used_for_a_second(
    run_plugin: Run, fake_circusd: FakeCircusd
) -> None:
    running = run_plugin(Prometheus, port=0, clock="virtual")
    for seconds, asked in ((0.0, 1), (0.9, 1), (0.1, 2)):
        running.advance(seconds)
        running.plugin.loop.add_callback(running.plugin._scrape, {})
        running.advance(0)
        assert given(running, "stats") == ["stats"] * asked


def test_circusd_and_the_host_have_so_long_to_answer(run_plugin: Run) -> None:
    timeouts = []

    async def call_async(_: str, timeout: float = 0.0) -> dict[str, Any]:
        timeouts.append(timeout)
        return {}

    async def ask(timeout: float) -> dict[str, Any]:
        timeouts.append(timeout)
        return {}

    plugin = run_plugin(Prometheus, port=0, timeout=17).plugin
    plugin.call_async, plugin._host.ask = call_async, ask
    asyncio.run(plugin._ask())
    assert timeouts == [17, 17, 17]


def test_the_path_can_be_said(scraper: Run) -> None:
    running = scraper(path="/figures")
    assert running.plugin.url.endswith("/figures")
    assert b"circus_up" in get(running)[0]
    with pytest.raises(SpecError, match="'path': 'figures' does not begin with /"):
        Prometheus(path="figures")


def test_scrapers_in_a_loop_ask_circusd_once(
    run_plugin: Run, fake_circusd: FakeCircusd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._prometheus._FRESH", 1e9)
    running = run_plugin(Prometheus, port=0, timeout=PATIENCE)
    for _ in range(5):
        get(running)
    asked = [each.command for each in fake_circusd.commands if each.command != "list"]
    assert sorted(asked) == ["stats", "status"]


def test_format_and_compression_are_those_that_the_scraper_asks_for(
    scraper: Run, fake_circusd: FakeCircusd
) -> None:
    running = scraper()
    accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    body, headers = get(running, **accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert gzip.decompress(body).decode().endswith("# EOF\n")
    body, headers = get(running)
    assert headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics?x=%ff HTTP/1.0\n\n", b"200"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /metrics SMTP\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nAccept: \xff\r\n\r\n", b"200"),
        (b"x" * 100_000, b""),
    ],
)
def test_an_odd_request_gets_a_plain_answer(scraper: Run, request_: bytes, status: bytes) -> None:
    running = scraper(client_timeout=1000)
    with client(running) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(request_)
        assert read(sock)[:12] == (b"HTTP/1.1 " + status if status else b"")
    get(running)


def test_an_answer_says_how_long_it_is_and_that_it_is_the_last(scraper: Run) -> None:
    running = scraper()
    for request in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /other HTTP/1.1\r\n\r\n"):
        with client(running, request) as sock:
            head, _, body = read(sock).partition(b"\r\n\r\n")
        assert body
        assert b"\r\nContent-Length: %d" % len(body) in head
        assert b"\r\nConnection: close" in head


def test_a_client_that_is_slow_is_sent_away_and_others_are_served_meanwhile(
    scraper: Run,
) -> None:
    running = scraper(client_timeout=0.5)
    with client(running, b"GET /metrics HT") as slow:
        get(running)
        assert read(slow) == b""


def test_how_many_are_served_at_a_time_is_bounded_and_the_others_wait(
    scraper: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circusplug.plugins._http_server.MAX_CLIENTS", 2)
    running = scraper(client_timeout=PATIENCE)
    with client(running) as first, client(running), client(running, b"GET /metrics") as late:
        running.plugin.call("list")  # a turn of the loop
        running.plugin.call("list")
        assert len(running.plugin._server._clients) == 2
        first.close()
        late.sendall(b" HTTP/1.1\r\n\r\n")
        assert b"circus_up" in read(late)


def test_a_stop_leaves_no_socket_even_with_clients_under_way(
    scraper: Run, fake_circusd: FakeCircusd
) -> None:
    fake_circusd.silence("stats")
    running = scraper()
    with client(running, b"GET /metrics HTTP/1.1\r\n\r\n") as waiting, client(running) as silent:
        fake_circusd.wait_command("stats")
        running.stop()
        assert read(waiting) + read(silent) == b""
        with pytest.raises(urllib.error.URLError):
            get(running)


def test_a_port_that_is_taken_is_one_line(run_plugin: Run, journal: Journal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SpecError) as caught:
        run_plugin(Prometheus, port=taken.getsockname()[1])
    assert caught.value.key == "port"
    assert "Address already in use" in str(caught.value)


def test_it_listens_at_ipv6_too(scraper: Run) -> None:
    running = scraper(host="::1")
    assert running.plugin.url.startswith("http://[::1]:")
    assert b"circus_up" in get(running)[0]


def test_without_the_package_the_rest_works_and_one_line_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from circusplug.plugins import *\n"
        "import circusplug\n"
        "try: Prometheus.check_config({})\n"
        "except circusplug.SpecError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stderr == ""
    assert done.stdout == (
        "Prometheus needs prometheus_client: pip install 'circusplug[metrics]'\n"
    )
