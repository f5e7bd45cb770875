# What a host announces of its plugins, state by state, and how what is asked of it is carried out,
# with a host and a server of the test's own.

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from patience import PATIENCE

from circusplug import Counters, HostConfig, HostError, PluginSpec
from circusplug._host import steering as steering_module
from circusplug._host.reloads import Reloads
from circusplug._host.steering import Steering, _all_of


class Host:
    """Notes what it is asked for; what is named "bad" fails."""

    has_circusd = False
    client = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.config = HostConfig((PluginSpec("a", "m.A"),))
        self.known = {"a": None}
        self.stopped = threading.Event()

    def statuses(self, fresh: bool) -> Any:
        self.asked.append(("statuses", str(fresh)))
        return self.known

    def stack(self, name: str) -> str:
        if name == "bad":
            raise HostError("there is no such plugin")
        return f"  {name}'s"

    def start_plugin(self, name: str) -> None:
        self._do("start", name)

    def stop_plugin(self, name: str) -> None:
        self._do("stop", name)

    def restart_plugin(self, name: str) -> None:
        self._do("restart", name)

    def reload(self) -> list[str]:
        self._do("reload", "bad" if "b" in self.known else "")
        return []

    def stop(self) -> None:
        self.stopped.set()

    def _do(self, what: str, name: str) -> None:
        self.asked.append((what, name))
        if name == "bad":
            raise HostError(f"no {what}")


class Server:
    def __init__(self, endpoint: str = "ipc://control") -> None:
        self.endpoint = endpoint
        self.said: list[str] = []
        self.closed = 0

    def announce(self, name: str, action: str, **payload: Any) -> None:
        self.said.append(" ".join([name, action, *(f"{key}={payload[key]}" for key in payload)]))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def steering(host: Host, server: Server) -> Steering:
    steering = Steering(host, Reloads(host))
    steering._server = server  # type: ignore[assignment]
    return steering


def plugin(state: str, pid: int | None = 7, stalls: int = 0, name: str = "a") -> Any:
    return SimpleNamespace(
        spec=SimpleNamespace(name=name),
        state=state,
        runner=SimpleNamespace(pid=pid),
        counters=Counters(stalls=stalls),
        last_error="it died",
    )


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["starting", "running"], ["spawn process_pid=7", "start"]),
        (["running", "running"], ["spawn process_pid=7", "start"]),
        (["running", "stopping", "stopped"], ["reap process_pid=7 exit_code=0", "stop"]),
        (["running", "stopping", "abandoned"], ["reap process_pid=7 exit_code=0", "stop"]),
        (["running", "stopping", "inactive"], ["reap process_pid=7 exit_code=0"]),
        (["running", "stopping", "starting"], ["reap process_pid=7 exit_code=0"]),
        (["running", "stopped"], ["reap process_pid=7 exit_code=0", "stop"]),
        (["running", "backoff"], ["reap process_pid=7 exit_code=1"]),
        (["running", "failed"], ["reap process_pid=7 exit_code=1", "failed error=it died"]),
        (["starting", "failed"], ["failed error=it died"]),
        (["running", "backoff", "stopped"], ["reap process_pid=7 exit_code=1", "stop"]),
        (["stopped"], []),
        (["inactive", "stopped"], []),
        (["backoff", "stopped"], ["stop"]),
        (["running", "waiting"], ["reap process_pid=7 exit_code=1"]),
    ],
    ids=" ".join,
)
def test_each_change_of_state_is_announced_once_in_circusd_s_words(
    steering: Steering, server: Server, states: list[str], said: list[str]
) -> None:
    for state in states:
        steering.note(plugin(state))
    if states[0] == "running" and len(states) > 1 and states[1] != "running":
        said = ["spawn process_pid=7", "start", *said]
    assert server.said == [f"a {each}" for each in said]


def test_a_stall_is_announced_each_time_and_before_what_becomes_of_it(
    steering: Steering, server: Server
) -> None:
    for state, stalls in (("running", 0), ("running", 1), ("running", 1), ("backoff", 2)):
        steering.note(plugin(state, stalls=stalls))
    assert server.said[2:] == [
        *("a stalled stalls=1", "a stalled stalls=2"),
        "a reap process_pid=7 exit_code=1",
    ]


def test_what_is_gone_is_reaped_and_stopped_and_announced_anew_if_it_returns(
    steering: Steering, server: Server, host: Host
) -> None:
    steering.note(plugin("running"))
    steering.note(plugin("running", pid=8, name="b"))
    steering.note(plugin("backoff", name="c"))
    server.said.clear()
    steering.note(None)
    assert sorted(server.said) == ["b reap process_pid=8 exit_code=0", "b stop", "c stop"]
    assert host.asked == [("statuses", "False")]
    server.said.clear()
    steering.note(None)
    assert server.said == []
    steering.note(plugin("running", pid=8, name="b"))
    assert server.said == ["b spawn process_pid=8", "b start"]


def test_what_is_gone_is_announced_although_others_have_never_been(
    steering: Steering, server: Server, host: Host
) -> None:
    steering.note(plugin("running"))
    server.said.clear()
    host.config = HostConfig((PluginSpec("idle", "m.A", {"active": False}),))
    steering.note(None)
    assert server.said == []  # it is still about to stop
    host.known = {"idle": None}
    steering.note(None)
    assert server.said == ["a reap process_pid=7 exit_code=0", "a stop"]


def test_without_an_endpoint_nothing_is_announced(steering: Steering, host: Host) -> None:
    steering._server = None
    steering.note(plugin("running"))
    steering.note(None)
    assert host.asked == []
    assert steering.endpoint == ""


def test_plugins_ask_at_the_door_if_there_is_one(steering: Steering) -> None:
    assert steering.endpoint == "ipc://control"
    door = steering._door = Server("ipc://door")  # type: ignore[assignment]
    assert steering.endpoint == "ipc://door"
    steering.close()
    steering.close()
    assert (steering._server.closed, door.closed) == (2, 2)  # type: ignore[union-attr]


def test_what_cannot_be_opened_closes_what_was(
    host: Host, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise HostError("somebody is there")

    door = SimpleNamespace(open=fail, close=lambda: None)
    server.open = lambda: None  # type: ignore[attr-defined]
    factory = SimpleNamespace(for_config=lambda *_: server)
    monkeypatch.setattr(steering_module, "ControlServer", factory)
    monkeypatch.setattr(steering_module, "Door", lambda *_: door)
    process: Any = SimpleNamespace(circusd_endpoint="ipc://circusd", endpoint_owner="")
    with pytest.raises(HostError, match="somebody is there"):
        Steering.opened(host, Reloads(host), host.config, process)
    assert server.closed == 1


def test_each_order_is_the_host_s_and_its_failures_are_told_together(
    steering: Steering, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    for what in ("start", "stop", "restart"):
        assert steering.change(what, ["a", "b"]).result(PATIENCE) is None
        assert sorted(host.asked) == [(what, "a"), (what, "b")]
        host.asked.clear()
        with pytest.raises(HostError, match=f"^no {what}$"):
            steering.change(what, ["a", "bad"]).result(PATIENCE)
        host.asked.clear()
    assert "control: what was asked of bad was not done: no restart" in caplog.text
    assert steering.change("stop", []).result(0) is None
    assert steering._to_do == {}


def test_a_stack_that_cannot_be_told_is_none(steering: Steering) -> None:
    assert steering.stack("a") == "  a's"
    assert steering.stack("bad") == ""


def test_a_reload_is_carried_out_aside_and_logged_once(
    steering: Steering, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    steering.reload().result(PATIENCE)
    assert host.asked == [("reload", "")]
    host.known["b"] = None
    with pytest.raises(HostError, match="no reload"):
        steering.reload().result(PATIENCE)
    assert caplog.text.count("no reload") == 1


def test_too_much_is_refused_be_it_changes_or_reloads(
    steering: Steering, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering_module, "_MOST_CHANGES", 2)
    go_on, begun = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    host.stop_plugin = wait  # type: ignore[method-assign]
    done = [steering.change("stop", ["a"])]
    assert begun.wait(PATIENCE)
    done.append(steering.change("start", ["a"]))
    for ask in (lambda: steering.change("start", ["b"]), steering.reload):
        with pytest.raises(HostError, match="too much is still to be done; try again"):
            ask()
    assert host.asked == []  # the start waits for the stop before it
    go_on.set()
    assert [each.result(PATIENCE) for each in done] == [None, None]
    assert host.asked == [("start", "a")]
    steering.reload().result(PATIENCE)


def test_a_quit_is_done_when_the_host_has_ended(steering: Steering, host: Host) -> None:
    done = steering.quit()
    assert host.stopped.wait(PATIENCE)
    assert not done.done()
    steering.close()
    assert done.result(0) is None


def test_a_whole_is_done_with_its_last_part() -> None:
    parts = [Future[None]() for _ in range(3)]
    whole = _all_of(parts)
    parts[1].set_exception(HostError("one"))
    parts[2].set_result(None)
    assert not whole.done()
    parts[0].set_exception(ValueError("two"))
    with pytest.raises(HostError, match=r"^two; one$"):
        whole.result(0)
