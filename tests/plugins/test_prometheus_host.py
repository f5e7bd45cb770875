# Prometheus and the plugins of its host: it asks the host at its control endpoint, or what is there
# in circusd's place, and goes on without if there is none.

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import zmq
from bundled import Journal
from circusd_real import RealCircusd
from hosts import all_run
from laggards import LAGS
from patience import PATIENCE
from scrapes import PROMTOOL, get, promtool, scrape
from steered import asked_of, control_ends, steered

from circusplug import Arbiter, CallTimeout
from circusplug._config.specs import HostConfig, make_specs
from circusplug._control.control_server import ControlServer
from circusplug._host.own_process import OwnProcess
from circusplug._runners.stall_watch import StallWatch
from circusplug.plugins._host_figures import HostFigures
from circusplug.testing import FakeCircusd

METRICS = {"use": "circusplug.plugins.Prometheus", "name": "metrics", "port": 0}
METRICS |= {"timeout": PATIENCE}
LATE = {"use": "laggards.Laggard", "name": "late"}
#: How many lags of one life are at most so long.
BOUNDS = ("0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1.0", "5.0", "+Inf")
BUCKETS = dict(zip(BOUNDS, (1, 1, 1, 3, 3, 3, 3, 3, 4), strict=True))


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured by itself, and no answer is used twice."""
    monkeypatch.setattr(StallWatch, "_measure_lag", lambda *_: None)
    monkeypatch.setattr("circusplug.plugins._prometheus._FRESH", 0.0)


@pytest.fixture
def at_control(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What control endpoints are asked; a door that asks circusd, too, is none."""
    return asked_of(ControlServer, monkeypatch)


def url(journal: Journal) -> str:
    return journal.wait("metrics are at").getMessage().rpartition(" ")[2]


def lags(found: dict[str, float], plugin: str = "late") -> dict[str, float]:
    """Its histogram: the buckets, the count and the sum."""
    prefix = "circusplug_plugin_lag_seconds_"
    mine = {key: value for key, value in found.items() if f"plugin={plugin}" in key}
    mine = {key.removeprefix(prefix): mine[key] for key in mine if prefix in key}
    return {key.partition("{")[0] + _bound(key): value for key, value in mine.items()}


def _bound(key: str) -> str:
    return key.partition("le=")[2].rstrip("}")


def expected(lives: int = 1) -> dict[str, Any]:
    buckets = {f"bucket{bound}": lives * count for bound, count in BUCKETS.items()}
    return {**buckets, "count": lives * len(LAGS), "sum": pytest.approx(lives * sum(LAGS))}


@pytest.mark.parametrize("isolate", [False, True])
def test_a_host_with_a_control_endpoint_is_asked_for_its_plugins(
    isolate: bool, fake_circusd: FakeCircusd, journal: Journal, at_control: list[str]
) -> None:
    fake_circusd.add_watcher("web")
    with steered(fake_circusd, {**METRICS, "isolate": isolate}, LATE) as host:
        found = scrape(url(journal))
        if not isolate:  # what the host is asked is no command to circusd
            assert host.arbiter.plugins["metrics"].counters.calls == 2
    assert found["circus_up{}"] == found["circus_watcher_processes{watcher=web}"] == 1
    assert found["circusplug_plugin_connected{plugin=metrics}"] == 1
    assert found["circusplug_plugin_restarts_total{plugin=late}"] == 0
    assert lags(found) == expected()
    assert lags(found, "metrics")["count"] == 0
    assert at_control == ["stats"]


def test_the_lags_of_an_isolated_plugin_add_up_over_its_lives(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    late = {**LATE, "use": "laggards.IsolatedLaggard", "isolate": True}
    with steered(fake_circusd, METRICS, late) as host:
        where = url(journal)
        assert lags(scrape(where)) == expected()
        host.arbiter.restart_plugin("late")
        host.wait("late", "running")
        assert lags(scrape(where)) == expected(lives=2)


def test_what_takes_circusds_commands_in_its_place_is_asked_once(
    fake_circusd: FakeCircusd, journal: Journal, at_control: list[str]
) -> None:
    fake_circusd.add_watcher("web")
    with control_ends() as ends, control_ends() as control:
        specs = make_specs([METRICS, LATE])
        config = HostConfig(
            specs, ends.endpoint, fake_circusd.pubsub_endpoint, control=control.endpoint
        )
        process = OwnProcess(circusd_endpoint=fake_circusd.endpoint)
        with Arbiter.from_config(config, process=process) as arbiter:
            arbiter.wait(all_run, PATIENCE)
            plugin = arbiter.instance("metrics")
            assert plugin.host_endpoint == plugin.endpoint == ends.endpoint
            found = scrape(url(journal))
    assert found["circus_watcher_processes{watcher=web}"] == 1
    assert lags(found) == expected()
    assert [one.command for one in fake_circusd.commands].count("stats") == 1
    assert at_control == []


def test_without_a_control_endpoint_there_are_no_plugins(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    with Arbiter([METRICS], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(all_run, PATIENCE)
        assert arbiter.instance("metrics").host_endpoint == ""
        assert set(scrape(url(journal))) == {"circus_up{}"}
    assert not [text for text in journal.messages if "left out" in text]


def test_a_host_may_be_named(fake_circusd: FakeCircusd, journal: Journal) -> None:
    with steered(fake_circusd, LATE) as other:
        metrics = {**METRICS, "control": other.ends.endpoint}
        with Arbiter([metrics], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(all_run, PATIENCE)
            found = scrape(url(journal))
    assert lags(found) == expected()
    assert lags(found, "metrics") == {}


@pytest.mark.circusd_leaves
def test_the_hosts_plugins_are_told_of_while_circusd_is_away(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    with steered(fake_circusd, {**METRICS, "timeout": 0.05}, LATE) as host:
        ask, where = host.arbiter.instance("metrics")._host.ask, url(journal)
        host.arbiter.instance("metrics")._host.ask = lambda _: ask(PATIENCE)
        fake_circusd.stop()
        host.arbiter.wait(lambda now: not now["metrics"].connected, PATIENCE)
        found = scrape(where)
        assert found["circus_up{}"] == found["circusplug_plugin_connected{plugin=metrics}"] == 0
        assert lags(found) == expected()
        fake_circusd.start()


@contextlib.contextmanager
def silent(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """Somebody who takes commands at an endpoint and never answers."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.rcvtimeo = int(PATIENCE * 1000)
        router.bind(endpoint)
        yield router


@pytest.mark.parametrize("kind", ["silent", "gone", "dead"])
def test_a_scrape_goes_on_without_a_host_that_tells_nothing(
    kind: str, fake_circusd: FakeCircusd, journal: Journal
) -> None:
    fake_circusd.add_watcher("web")
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(control_ends()).endpoint
        router = stack.enter_context(silent(endpoint)) if kind == "silent" else None
        if kind == "dead":  # its socket's file stays
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(endpoint.removeprefix("ipc://"))
        metrics = {**METRICS, "control": endpoint}
        arbiter = stack.enter_context(
            Arbiter([metrics], fake_circusd.endpoint, fake_circusd.pubsub_endpoint)
        )
        arbiter.wait(all_run, PATIENCE)
        plugin, where = arbiter.instance("metrics"), url(journal)
        if kind == "silent":
            ask = plugin._host.ask
            plugin._host.ask = lambda _: ask(0.05)
        for _ in range(2):
            assert scrape(where)["circus_watcher_processes{watcher=web}"] == 1
        if router is not None:
            assert b'"stats"' in router.recv_multipart()[1]
    told = [text for text in journal.messages if "are left out" in text]
    why = "no reply in 0.05 s" if router else "nobody listens there, or not to this user"
    assert told == [f"the figures of the host at {endpoint} are left out: {why}"]


def test_each_time_that_a_host_tells_nothing_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    figures: Any = {"plugin:x": {"7": {"received": 1}}}
    plugin: Any = SimpleNamespace(logger=logging.getLogger("circusplug.test"))
    host = HostFigures(plugin, "tcp://127.0.0.1:1")
    full, late = zmq.ZMQError(24), CallTimeout("stats", {}, 3.0)
    answers: list[Any] = [full, full, {"infos": figures}, {}, late]

    async def call(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    host._call = call  # type: ignore[method-assign]
    found = [asyncio.run(host.ask(3)) for _ in range(5)]
    assert found == [{}, {}, {"x": {"received": 1}}, {}, {}]
    assert caplog.text.count("Too many open files") == 1
    assert caplog.text.count("are left out: no reply in 3 s") == 1


def test_a_stop_while_the_host_is_asked_leaves_no_socket(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    with control_ends() as ends, silent(ends.endpoint) as router:
        metrics = {**METRICS, "control": ends.endpoint}
        with Arbiter([metrics], fake_circusd.endpoint, fake_circusd.pubsub_endpoint):
            where = urlsplit(url(journal))
            assert where.hostname
            assert where.port
            waiting = socket.create_connection((where.hostname, where.port), PATIENCE)
            waiting.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            router.recv_multipart()
        with waiting:
            assert waiting.recv(1) == b""


def test_figures_that_make_no_sense_are_left_out(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    odd: list[Any] = [3, {"x": 3}, {"0": 3, "+Inf": "x"}]
    infos: dict[str, Any] = {
        f"plugin:{number}": {"7": {"received": 1, "lag_sum": 1.0, "lag_buckets": buckets}}
        for number, buckets in enumerate(odd)
    }
    infos |= {"plugin:x": 3, "plugin:y": {"7": 3}, "plugin:z": {"7": {"cpu": 0.0}}}
    fake_circusd.reply("stats", {"infos": infos})
    with Arbiter([METRICS], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(all_run, PATIENCE)
        found = scrape(url(journal))
    counted = [key for key in found if "events_received" in key]
    assert counted == [f"circusplug_plugin_events_received_total{{plugin={n}}}" for n in range(3)]
    assert not [key for key in found if "_lag_" in key or "plugin=z" in key]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (Debian's package prometheus)")
def test_promtool_finds_nothing_wrong_with_the_metrics_of_a_real_circusd_and_a_host(
    journal: Journal,
) -> None:
    watchers = {"My App": {"numprocesses": 2}, "crashing": {"cmd": 'sh -c "exit 3"'}}
    with (
        RealCircusd(watchers, max_retry=-1) as circusd,
        control_ends() as ends,
        Arbiter(
            [METRICS, LATE], circusd.endpoint, circusd.pubsub_endpoint, control=ends.endpoint
        ) as arbiter,
    ):
        arbiter.wait(lambda plugins: plugins["metrics"].counters.handled > 3, PATIENCE)
        text, _ = get(url(journal))
    assert b'circus_watcher_processes{watcher="My App"} 2.0' in text
    assert b'circus_watcher_deaths_total{exit_code="3",signal="",watcher="crashing"}' in text
    assert b'circus_watcher_age_seconds{watcher="My App"}' in text
    assert b'circus_watcher_resident_memory_bytes{watcher="My App"}' in text
    assert b'circusplug_plugin_lag_seconds_bucket{le="0.05",plugin="late"} 3.0' in text
    assert promtool(text) == (0, b"", b"")
