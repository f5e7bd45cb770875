# Every command of circusd's language, as a host answers it on its control endpoint.

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psutil
import pytest
from members import Journal, Stuck, member
from patience import PATIENCE
from steered import Steered, steered
from troublemakers import Fruitless, Talker

from circusplug._control.language import RefusedError
from circusplug._control.plugin_watchers import COMMANDS, signal_number
from circusplug.testing import FakeCircusd

SECRETS = {
    "password": "hunter2",
    "nested": {"api_key": "k", "user": "u", "more": [1, (2,), None, object]},
}


@pytest.fixture
def host() -> Iterator[Steered]:
    """A host of a plugin on a thread, an isolated one, one that failed, and one that is off.

    Each test has one of its own: what it opens later than its start would look left behind.
    """
    plugins = (
        {"use": Talker, "name": "Web.Log", "colour": "red", **SECRETS},
        {"use": Talker, "name": "cage", "isolate": True, "host.env.TOKEN": "t0k", "host.nice": 1},
        {"use": Fruitless, "name": "fruit", "host.max_restarts": 0},
        {"use": Talker, "name": "off", "active": False},
    )

    def settled(now: object) -> bool:
        states = {name: status.state for name, status in now.items()}  # type: ignore[attr-defined]
        return states == {
            "Web.Log": "running",
            "cage": "running",
            "fruit": "failed",
            "off": "inactive",
        }

    with FakeCircusd() as circusd, steered(circusd, *plugins, until=settled) as host:
        yield host


WATCHERS = ["plugin:cage", "plugin:fruit", "plugin:off", "plugin:web.log"]


def test_list_names_the_plugins_as_watchers_and_their_processes(host: Steered) -> None:
    assert host.ok("list")["watchers"] == WATCHERS
    assert host.ok("list", name="plugin:web.log")["pids"] == [os.getpid()]
    assert host.ok("list", name="plugin:cage")["pids"] == [host.status("cage").pid]
    assert host.ok("list", name="plugin:off")["pids"] == []


def test_a_reply_has_the_id_and_the_time(host: Steered) -> None:
    host.wire.send(b'{"id": {"any": ["thing"]}, "command": "LIST"}')
    reply = host.wire.receive()
    assert (reply["id"], reply["status"]) == ({"any": ["thing"]}, "ok")
    assert reply["time"] > 1e9


def test_status_has_circusds_words(host: Steered) -> None:
    assert host.ok("status")["statuses"] == {
        "plugin:Web.Log": "active",
        "plugin:cage": "active",
        "plugin:fruit": "stopped",
        "plugin:off": "stopped",
    }
    assert host.wire.call_raw("status", name="PLUGIN:web.LOG")["status"] == "active"


def test_stats_have_the_processs_figures_and_the_plugins_counters(host: Steered) -> None:
    infos = host.ok("stats")["infos"]
    assert {name: list(info) for name, info in infos.items()} == {
        "plugin:Web.Log": [str(os.getpid())],
        "plugin:cage": [str(host.status("cage").pid)],
        "plugin:fruit": [],
        "plugin:off": [],
    }
    (info,) = infos["plugin:cage"].values()
    assert info["nice"] == 1
    for key in (
        *("cpu", "mem", "mem_info1", "mem_info2", "age", "username", "cmdline", "wid", "started"),
        *("received", "handled", "errors", "calls", "conflicts", "restarts", "stalls", "lag"),
        *("lag_sum", "lag_buckets", "connected", "last_error", "state", "uptime"),
    ):
        assert key in info, key
    named = host.ok("stats", name="plugin:cage")
    assert (named["name"], list(named["info"])) == ("plugin:cage", [str(info["pid"])])
    one = host.ok("stats", name="plugin:cage", process=info["pid"])
    assert one["info"]["pid"] == info["pid"]
    assert host.refused("stats", name="plugin:cage", process=1)[0] == 3


def test_the_cpu_of_a_plugin_on_a_thread_is_that_of_the_thread(host: Steered) -> None:
    thread = host.status("Web.Log").thread
    assert thread is not None
    (info,) = host.ok("stats", name="plugin:web.log")["info"].values()
    minutes, seconds = info["ctime"].split(":")
    whole = psutil.Process().cpu_times()
    assert int(minutes) * 60 + float(seconds) < whole.user + whole.system


def test_dstats_are_those_of_the_host(host: Steered) -> None:
    info = host.ok("dstats")["info"]
    assert (info["pid"], info["cmdline"]) == (os.getpid(), "circusplug")


def test_options_are_the_plugins_and_the_hosts_with_secrets_masked(host: Steered) -> None:
    options = host.ok("options", name="plugin:web.log")["options"]
    assert (options["colour"], options["use"]) == ("red", "troublemakers.Talker")
    assert (options["password"], options["numprocesses"]) == ("****", 1)
    assert options["nested"] == {
        "api_key": "****",
        "user": "u",
        "more": [1, [2], None, str(object)],
    }
    cage = host.ok("options", name="plugin:cage")["options"]
    assert cage["isolate"] is True
    assert "hunter2" not in str(options)
    assert "t0k" not in str(cage)


def test_get_has_the_keys_asked_for_and_suggests_others(host: Steered) -> None:
    got = host.ok("get", name="plugin:web.log", keys=["colour", "password"])["options"]
    assert got == {"colour": "red", "password": "****"}
    errno, reason = host.refused("get", name="plugin:web.log", keys=["color"])
    assert (errno, reason) == (3, "'color' option not found (did you mean 'colour'?)")


def test_globaloptions_tell_where_the_host_and_its_circusd_are(host: Steered) -> None:
    options = host.ok("globaloptions")["options"]
    assert (options["endpoint"], options["pubsub_endpoint"]) == host.ends
    assert options["circusd_endpoint"] == host.circusd.endpoint
    assert options["pid"] == os.getpid()
    assert host.ok("globaloptions", option="check_delay")["options"] == {"check_delay": 5.0}
    assert host.refused("globaloptions", option="colour")[0] == 3


def test_numbers_are_told(host: Steered) -> None:
    assert host.ok("numwatchers")["numwatchers"] == 4
    assert host.ok("numprocesses")["numprocesses"] == 2
    named = host.ok("numprocesses", name="plugin:off")
    assert (named["numprocesses"], named["watcher_name"]) == (0, "plugin:off")
    assert host.ok("listsockets")["sockets"] == []


def test_details_tell_everything_of_each_plugin_at_once(host: Steered) -> None:
    told = host.ok("details")
    assert list(told["plugins"]) == ["Web.Log", "cage", "fruit", "off"]
    fruit = told["plugins"]["fruit"]
    assert (fruit["state"], fruit["pid"], fruit["uptime"]) == ("failed", None, None)
    assert "bears no fruit" in fruit["last_error"]
    assert told["plugins"]["off"]["state"] == "inactive"
    assert told["plugins"]["cage"]["isolated"] is True


def test_stack_tells_of_one_or_all(host: Steered) -> None:
    stacks = host.ok("stack")["stacks"]
    assert list(stacks) == ["Web.Log", "cage", "fruit", "off"]
    assert "waits for something to do" in stacks["Web.Log"]
    assert (stacks["fruit"], stacks["off"]) == ("", "")
    assert list(host.ok("stack", name="plugin:w*")["stacks"]) == ["Web.Log"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_refuses_an_unknown_name_or_needs_none(host: Steered, command: str) -> None:
    if command in ("quit", "reloadconfig"):
        return
    host.wire.request(command, name="plugin:web.lgo", signum=18, keys=[])
    reply = host.wire.receive()
    if command in ("details", "dstats", "globaloptions", "listsockets", "numwatchers"):
        assert reply["status"] == "ok"
    elif command in ("add", "decr", "incr", "rm", "set"):
        assert reply["errno"] == 5
    else:
        assert (reply["errno"], reply["reason"]) == (
            3,
            "program plugin:web.lgo not found (did you mean 'plugin:Web.Log'?)",
        ) or command in ("status", "stats", "options")
        assert reply["reason"].startswith("program plugin:web.lgo not found")


@pytest.mark.parametrize("command", ["add", "decr", "incr", "rm", "set"])
def test_what_makes_no_sense_is_refused_with_what_to_do_instead(
    host: Steered, command: str
) -> None:
    errno, reason = host.refused(command, name="plugin:cage")
    assert errno == 5
    assert "section" in reason


def test_an_unknown_command_gets_a_suggestion(host: Steered) -> None:
    assert host.refused("restrt") == (
        2,
        "unknown command: 'restrt' (did you mean 'restart'?)",
    )
    assert host.refused("xyzzy") == (2, "unknown command: 'xyzzy'")


@pytest.mark.parametrize("command", [name for name, (_, needs) in COMMANDS.items() if needs])
def test_a_command_without_what_it_needs_is_refused(host: Steered, command: str) -> None:
    assert host.refused(command) == (3, "message invalid 'name' is missing")


@pytest.mark.parametrize("command", ["signal", "kill"])
def test_a_plugin_on_a_thread_gets_no_signal(host: Steered, command: str) -> None:
    errno, reason = host.refused(command, name="plugin:web.log", signum="usr1")
    assert errno == 5
    assert "runs on a thread of the host, which a signal would reach as a whole" in reason


def test_a_signal_goes_to_an_isolated_plugins_process_and_to_no_other(host: Steered) -> None:
    assert host.ok("signal", name="plugin:cage", signum=18)
    assert host.ok("signal", name="plugin:cage", signum="cont", pid=host.status("cage").pid)
    assert host.refused("signal", name="plugin:cage", signum=18, pid=1)[0] == 3
    assert host.refused("signal", name="plugin:fruit", signum=18)[0] == 5
    assert host.refused("signal", name="plugin:cage", signum="nonsense") == (3, "signal invalid")


def test_a_killed_plugin_starts_again() -> None:
    plugin = {"use": Talker, "name": "cage", "isolate": True, "host.restart_delay": 0.01}
    with FakeCircusd() as circusd, steered(circusd, plugin) as host:
        host.ok("kill", name="plugin:cage", signum="kill")
        status = host.arbiter.wait(lambda now: now["cage"].counters.restarts == 1, PATIENCE)
        assert status["cage"].name == "cage"
        host.wait("cage", "running")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (9, 9),
        ("9", 9),
        ("kill", 9),
        ("SIGKILL", 9),
        ("SigTerm", 15),
        (0, None),
        ("99", None),
        ("POSIX", None),
    ],
)
def test_a_signal_is_a_number_or_a_name(value: object, number: int | None) -> None:
    if number is not None:
        assert signal_number(value) == number
        return
    with pytest.raises(RefusedError, match="signal invalid"):
        signal_number(value)


def test_a_stuck_plugins_stack_shows_where_it_is(
    fake_circusd: FakeCircusd, journal: Journal, release: threading.Event
) -> None:
    stuck = member("s", Stuck, journal=journal, release=release)
    with steered(fake_circusd, stuck) as host:
        fake_circusd.wait_subscribed()
        fake_circusd.publish("web", "block")
        journal.wait("s", "block")
        host.arbiter.wait(lambda _: "in block" in host.ok("stack")["stacks"]["s"], PATIENCE)
        release.set()
