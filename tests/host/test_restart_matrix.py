# What becomes of a plugin after each way to end, on a thread and in a process: the idea of the
# matrix is that of the tests of Erlang's supervisor. Each kind of runner has one host with a
# plugin for each cell, and the tests look at what became of it.

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import troublemakers
from members import give_up
from patience import PATIENCE
from troublemakers import Ender, Talker, Troublemaker

from circusplug import Arbiter, HostError, PluginStatus
from circusplug._host import managed_plugin
from circusplug.testing import FakeCircusd

RESTARTS = ("on-failure", "always", "never")
ENDS = ("clean end", "handler error", "crash", "init failure", "hang in init")
RUNNERS = ("thread", "process")

#: How often a plugin here may fail in a row before it is given up.
MAX_RESTARTS = 2
#: After how many lives one that always comes back is told to be good, so that it stays.
LIVES = 4

#: How long a start may take, in seconds. For one that hangs it is over as soon as it hangs.
START_TIMEOUT = 100

#: (restart, end is clean) -> the state at the end, and how many instances there were, if each
#: life ends in the same way.
EXPECTED = {
    ("on-failure", True): ("stopped", 1),
    ("on-failure", False): ("failed", 1 + MAX_RESTARTS),
    ("always", True): ("running", LIVES),
    ("always", False): ("failed", 1 + MAX_RESTARTS),
    ("never", True): ("stopped", 1),
    ("never", False): ("failed", 1),
}
#: The same for one that ends once, and is good from then on.
EXPECTED_ONCE = {
    ("on-failure", True): ("stopped", 1),
    ("on-failure", False): ("running", 2),
    ("always", True): ("running", 2),
    ("always", False): ("running", 2),
    ("never", True): ("stopped", 1),
    ("never", False): ("failed", 1),
}
ERRORS = {
    "clean end": "",
    "handler error": "handle_recv: ValueError: cannot handle that",
    "crash": {
        "thread": "left by sys.exit(3)",
        "process": "its process ended without a word, exit status 3",
    },
    "init failure": "RuntimeError: cannot begin",
    "hang in init": f"not initialised after {START_TIMEOUT} s",
}

CELLS = list(itertools.product(("each time", "once"), RESTARTS, ENDS))


def cell_name(how_often: str, restart: str, end: str) -> str:
    return f"{end} {how_often}, {restart}"


@dataclass(frozen=True)
class Outcome:
    """What became of a plugin."""

    state: str
    instances: int
    restarts: int
    last_error: str


@pytest.fixture(scope="module", params=RUNNERS)
def outcomes(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Outcome]]:
    """Run all cells of a runner until each has come to its end, and let go of everything."""
    runner = request.param
    lives = dict.fromkeys((cell_name(*cell) for cell in CELLS), 0)

    def answer(properties: Mapping[str, Any]) -> dict[str, Any]:
        name = properties["plugin"]
        if properties["what"] == "init":
            lives[name] += 1
        return {"good": lives[name] >= enough(name)}

    plugins = [
        {
            "use": Ender,
            "name": cell_name(how_often, restart, end),
            "end": end,
            "on": runner,
            "isolate": runner == "process",
            "host.restart": restart,
            "host.max_restarts": MAX_RESTARTS,
            "host.restart_delay": 0.01,
            "host.start_timeout": START_TIMEOUT,
            "host.on_error": "restart",
        }
        for how_often, restart, end in CELLS
    ]
    with FakeCircusd(["web"]) as circusd, pytest.MonkeyPatch.context() as patch:
        patch.setattr(managed_plugin, "READY_WAIT", 0.05)  # those that hang, hang side by side
        circusd.reply("say", answer)
        with Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
            known, given_up = dict(lives), dict.fromkeys(lives, 0)

            def is_over(now: Mapping[str, PluginStatus]) -> bool:
                # Others may have begun since `now`, so it is the lives of before that count.
                over = has_gone_wrong(now, known) or all(
                    (now[name].state, known[name]) == expected(name) for name in known
                )
                known.update(lives)
                for name in known:
                    hung = min(known[name], enough(name) - 1) if name.startswith("hang") else 0
                    if given_up[name] < hung:
                        given_up[name] += 1
                        give_up(arbiter, name)
                return over

            statuses = arbiter.wait(is_over, PATIENCE)
            found = {name: outcome(statuses[name], lives[name]) for name in lives}
        threads = [item for item in threading.enumerate() if item.name.startswith("plugin:")]
        troublemakers.released.set()
        for thread in threads:
            thread.join(PATIENCE)
        troublemakers.released.clear()
    return runner, found


def enough(name: str) -> int:
    """Which life of a plugin is told to be good."""
    return 2 if "once" in name else LIVES


def expected(name: str) -> tuple[str, int]:
    how_often, restart, end = next(cell for cell in CELLS if cell_name(*cell) == name)
    table = EXPECTED if how_often == "each time" else EXPECTED_ONCE
    return table[restart, end == "clean end"]


def has_gone_wrong(now: Mapping[str, PluginStatus], lives: Mapping[str, int]) -> bool:
    """Whether a plugin has more lives than it should, or is in a last state that is not its."""
    return any(
        lives[name] > expected(name)[1]
        or (status.state in ("failed", "stopped") and status.state != expected(name)[0])
        for name, status in now.items()
    )


def outcome(status: PluginStatus, lives: int) -> Outcome:
    return Outcome(status.state, lives, status.counters.restarts, status.last_error or "")


@pytest.mark.parametrize(("how_often", "restart", "end"), CELLS)
def test_what_follows_an_end(
    outcomes: tuple[str, Mapping[str, Outcome]], how_often: str, restart: str, end: str
) -> None:
    runner, found = outcomes
    name = cell_name(how_often, restart, end)
    state, instances = expected(name)
    result = found[name]
    assert (result.state, result.instances) == (state, instances)
    assert result.restarts == instances - 1
    error = ERRORS[end]
    assert result.last_error.startswith(error[runner] if isinstance(error, dict) else error)


@pytest.fixture
def circusd() -> Iterator[FakeCircusd]:
    with FakeCircusd(["web"]) as circusd:
        yield circusd


@pytest.mark.parametrize("isolate", [False, True])
def test_a_restart_is_a_new_instance_and_its_predecessor_has_stopped(
    circusd: FakeCircusd, isolate: bool
) -> None:
    plugin = {"use": Talker, "name": "one", "isolate": isolate}
    with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
        first, instance = arbiter.plugins["one"].pid, arbiter.instance("one")
        arbiter.restart_plugin("one")
        status = arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)["one"]
        assert [command.properties["what"] for command in circusd.commands] == [
            "init",
            "stop",
            "init",
        ]
        assert status.counters.restarts == 0
        if isolate:
            assert status.pid != first
            assert not psutil.pid_exists(first or 0)
        else:
            assert arbiter.instance("one") is not instance


def failing_to_start(circusd: FakeCircusd, isolate: bool, **options: Any) -> Arbiter:
    """A host of one plugin, which cannot be initialised until circusd answers it otherwise."""
    circusd.reply("say", {"good": False})
    plugin = {"use": Ender, "name": "one", "end": "init failure", "isolate": isolate, **options}
    return Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_plugin_given_up_can_be_started_by_hand(circusd: FakeCircusd, isolate: bool) -> None:
    with failing_to_start(circusd, isolate, **{"host.restart": "never"}) as arbiter:
        arbiter.wait(lambda now: now["one"].state == "failed", PATIENCE)
        circusd.reply("say", {"good": True})
        arbiter.start_plugin("one")
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_restart_that_is_waited_for_can_be_stopped(circusd: FakeCircusd, isolate: bool) -> None:
    delays = {"host.restart_delay": 1e6, "host.restart_delay_max": 1e6}
    with failing_to_start(circusd, isolate, **delays) as arbiter:
        arbiter.wait(lambda now: now["one"].state == "backoff", PATIENCE)
        arbiter.stop_plugin("one")
        assert arbiter.plugins["one"].state == "stopped"
        circusd.reply("say", {"good": True})
        arbiter.start_plugin("one")
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_critical_plugin_that_is_given_up_takes_the_host_with_it(
    circusd: FakeCircusd, isolate: bool, unhurried: None
) -> None:
    circusd.reply("say", {"good": False})
    plugins = [
        {
            "use": Talker,
            "name": "bystander",
            "isolate": isolate,
            "host.start_timeout": PATIENCE,
        },
        {
            "use": Ender,
            "name": "one",
            "end": "crash",
            "on": "process" if isolate else "thread",
            "isolate": isolate,
            "host.restart": "never",
            "host.critical": True,
            "active": False,
        },
    ]
    arbiter = Arbiter(plugins, circusd.endpoint, circusd.pubsub_endpoint)
    with arbiter:
        arbiter.wait(lambda now: now["bystander"].state == "running", PATIENCE)
        with contextlib.suppress(HostError):  # it may have stopped by the time of the answer
            arbiter.start_plugin("one")
        arbiter.wait(lambda now: now["bystander"].state == "stopped", PATIENCE)
    assert str(arbiter.failure).startswith("one is critical and has failed for good: ")
    circusd.wait_command("say", what="stop", plugin="bystander", timeout=PATIENCE)


@pytest.mark.parametrize("isolate", [False, True])
def test_handler_errors_are_let_pass_until_there_are_too_many(
    circusd: FakeCircusd, isolate: bool
) -> None:
    plugin = {
        "use": Troublemaker,
        "name": "one",
        "isolate": isolate,
        "host.on_error": "stop",
        "host.max_errors": 3,
    }
    with Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(lambda now: now["one"].state == "running", PATIENCE)
        circusd.wait_subscribed(1, PATIENCE)
        circusd.publish("web", "raise")
        circusd.publish("web", "raise")
        circusd.publish("web", "harmless")
        status = arbiter.wait(lambda now: now["one"].counters.handled == 1, PATIENCE)["one"]
        assert (status.state, status.counters.errors) == ("running", 2)
        circusd.publish("web", "raise")
        status = arbiter.wait(lambda now: now["one"].state == "failed", PATIENCE)["one"]
        assert status.counters.errors == 3
        circusd.wait_command("say", what="stop", timeout=PATIENCE)


@pytest.mark.parametrize("isolate", [False, True], ids=["thread", "process"])
def test_an_option_that_does_not_fit_is_not_tried_again(isolate: bool) -> None:
    plugin = {"use": "circusplug.plugins.LoadScaler", "name": "scaler", "isolate": isolate}
    with (
        FakeCircusd() as circusd,
        Arbiter([plugin], circusd.endpoint, circusd.pubsub_endpoint) as arbiter,
    ):
        (status,) = arbiter.wait(lambda all_: all_["scaler"].state == "failed", PATIENCE).values()
    assert status.counters.restarts == 0
    assert "'watcher' is missing" in (status.last_error or "")
