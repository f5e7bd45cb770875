# What the tests under a real circusd share: where it is, what tells that the processes of its
# watchers are gone, plugins that record what they see, and logs of circusd that misbehave.

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import circus_like_plugins
import pytest
from circusd_bench import Bench
from circusd_real import free_endpoints
from command import Fifo
from contract import SENTINEL, new_circusd
from record import Record
from wire import Circusd, Wire


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with Fifo(tmp_path / "fifo") as fifo:
        yield fifo


@pytest.fixture
def ends() -> dict[str, Any]:
    """Where circusd shall be; nobody is asked to discover it."""
    endpoint, pubsub_endpoint = free_endpoints(2)
    return {"endpoint": endpoint, "pubsub_endpoint": pubsub_endpoint, "check_delay": 0.2}


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path / "record") as record:
        yield record


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sample plugins on our base, also for the processes that are started."""
    places = [os.getcwd(), str(Path(circus_like_plugins.__file__).parent), str(tmp_path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return circus_like_plugins.write_on_our_base(tmp_path)


@pytest.fixture(scope="module", params=["fake", "real"])
def circusd(request: pytest.FixtureRequest) -> Iterator[Circusd]:
    """A fake one and a real one, which are asked the same."""
    with new_circusd(request.param) as circusd:
        yield circusd


@pytest.fixture
def wire(circusd: Circusd) -> Iterator[Wire]:
    with Wire(circusd) as wire:
        wire.subscribe_with(SENTINEL)
        yield wire


@pytest.fixture
def job(wire: Wire) -> Iterator[str]:
    """The name of a fresh watcher with two processes; its events so far are taken."""
    options = {"numprocesses": 2, "graceful_timeout": 2}
    reply = wire.call(
        "add", name="The Job", cmd="sleep 1000", start=True, options=options, waiting=True
    )
    assert reply["status"] == "ok"
    wire.events_until(SENTINEL)
    yield "The Job"
    wire.call("rm", name="The Job", waiting=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def nagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a configuration for circusd's log with the stream of a given module."""

    def write(module: str) -> Path:
        (tmp_path / "nagged.py").write_text(module)
        path = tmp_path / "logs.json"
        path.write_text(json.dumps(config))
        return path

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    handler = {"class": "logging.StreamHandler", "stream": "ext://nagged.stream"}
    root = {"level": "INFO", "handlers": ["nagged"]}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"nagged": handler},
        "root": root,
    }
    return write
