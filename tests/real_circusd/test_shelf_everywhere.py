# All plugins of the shelf at once, on threads, in processes of their own, and each by itself under
# a stock circusd: they start, hear of an event, and end without a trace.

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from circusd_real import RealCircusd
from hosts import all_run
from patience import PATIENCE, wait_while
from record import by_circusd

from circusplug import Arbiter, plugins

#: What each has to be given.
OPTIONS: dict[str, dict[str, Any]] = {
    "HttpObserver": {"check_url": "http://127.0.0.1:1/"},
    "LoadScaler": {"watcher": "idle"},
    "Logger": {"filename": "LOG"},
    "Prometheus": {"port": 0},
    "Recorder": {"filename": "LOG.jsonl"},
    "ResourceWatcher": {"watcher": "*"},
    "WatchDog": {"port": 0, "loop_rate": 1000},
}


def options_of(name: str, log: Path) -> dict[str, Any]:
    given = {**OPTIONS.get(name, {}), "use": f"circusplug.plugins.{name}"}
    return {
        key: value.replace("LOG", str(log)) if isinstance(value, str) else value
        for key, value in given.items()
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events"


def wait_logged(log: Path, circusd: RealCircusd) -> None:
    """Have circusd publish an event now and then until the logger has it.

    Each one is for all plugins; those that are still starting would have to handle them all.
    """

    def is_missing() -> bool:
        circusd.call("set", name="idle", options={"max_retry": 5})
        return not log.exists() or "idle updated" not in log.read_text()

    wait_while(is_missing, pause=0.1)


@pytest.mark.parametrize("isolate", [False, True])
def test_under_the_host(isolate: bool, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf = [{**options_of(name, log), "isolate": isolate} for name in plugins.__all__]
    with RealCircusd({"idle": {}}) as circusd:
        with Arbiter(shelf, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(all_run, PATIENCE)
            wait_logged(log, circusd)
            statuses = arbiter.plugins
        assert [one.counters.errors for one in statuses.values()] == [0] * len(shelf)
        assert {one.counters.restarts for one in statuses.values()} == {0}
        assert {one.state for one in arbiter.plugins.values()} == {"stopped"}
        assert circusd.call("list", name="idle")["pids"]
    assert "Traceback" not in caplog.text


@by_circusd
def test_under_a_stock_circusd(log: Path) -> None:
    shelf = {name.lower(): options_of(name, log) for name in plugins.__all__}
    with RealCircusd({"idle": {}}, plugins=shelf) as circusd:
        wait_logged(log, circusd)
        pids = {name: circusd.call("list", name=f"plugin:{name}")["pids"] for name in shelf}
        assert [len(found) for found in pids.values()] == [1] * len(shelf)
        circusd.call("set", name="idle", options={"max_retry": 5}, waiting=True)
        again = {name: circusd.call("list", name=f"plugin:{name}")["pids"] for name in shelf}
        assert again == pids  # none has failed and was started again
        circusd.terminate()
