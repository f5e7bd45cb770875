# What a program says of its watchers, before any process is started: what is refused, and in which
# words.

from __future__ import annotations

import inspect
import json
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from circusplug import Arbiter, CircusPlugin, SpecError, get_arbiter
from circusplug._circusd.watcher_options import CIRCUSD_OPTIONS, WATCHER_OPTIONS, plan_circusd
from circusplug._config.specs import HostConfig


def known_function() -> bool:
    return True


def plan(*watchers: Any, **options: Any) -> dict[str, Any]:
    text = plan_circusd(HostConfig(), watchers, options).text
    found: dict[str, Any] = json.loads(text)
    return found


def web(**options: Any) -> dict[str, Any]:
    return {"name": "web", "cmd": "serve", **options}


NOT_HERE = "circusd is another process, where this cannot go"


class Stuck:
    def __repr__(self) -> str:
        return "<stuck>"


@pytest.mark.parametrize(
    ("watcher", "told"),
    [
        ({"name": "web"}, "watcher 'web': 'cmd' is missing; give the command to run as text"),
        ({}, "watchers[0]: 'cmd' is missing; give the command to run as text"),
        (
            web(cmd=["a", "b"]),
            "watcher 'web': 'cmd' is ['a', 'b']; give the command to run as text",
        ),
        (
            {"use": "a.B"},
            "watchers[0]: 'cmd' is missing; give the command to run as text; what has a 'use' is "
            "a plugin and goes into 'plugins'",
        ),
        (
            "serve",
            'watchers[0]: \'serve\' is no watcher; write {"name": ..., "cmd": ...} (plugins go '
            "into 'plugins')",
        ),
        (web(name=3), "watcher 3: 'name' is not text"),
        (
            web(numproceses=2),
            "watcher 'web': 'numproceses': a watcher has no such option (did you mean "
            "'numprocesses'?)",
        ),
        (
            {"name": "web", "cmd": "x", "stdout_stream.class": "A"},
            "watcher 'web': 'stdout_stream.class': write 'stdout_stream': {'class': ...}",
        ),
        (
            web(rlimit_nofile=9),
            "watcher 'web': 'rlimit_nofile': write 'rlimits': {'nofile': ...}",
        ),
        *(
            (
                web(**{f"{group}.x": "y"}),
                f"watcher 'web': '{group}.x': write '{group}': {{'x': ...}}",
            )
            for group in ("stdout_stream", "stderr_stream", "hooks", "env", "rlimits")
        ),
        (web(env={"PORT": 80}), "watcher 'web': 'env': 80 is not text"),
        (web(env={80: "PORT"}), "watcher 'web': 'env': 80 is not text"),
        (web(rlimits={1: 2}), "watcher 'web': 'rlimits': 1 is not text"),
        (web(hooks=["a"]), "watcher 'web': 'hooks': ['a'] is no mapping"),
        (
            web(hooks={"before_start": ("a.b",)}),
            "watcher 'web': 'hooks': 'before_start' is ('a.b',); write ('module.function', False)",
        ),
        (web(cmd="  "), "watcher 'web': 'cmd' is '  '; give the command to run as text"),
        (
            web(args=["a", (Stuck(),)]),
            f"watcher 'web': 'args': <stuck> is no text, number, list or mapping; {NOT_HERE}",
        ),
        (web(env="PORT=80"), "watcher 'web': 'env': 'PORT=80' is no mapping"),
        (
            web(graceful_timeout="soon"),
            "watcher 'web': 'graceful_timeout': 'soon' is not a number of seconds; "
            "write 90, 1.5 min or 2h",
        ),
        (
            web(args=Stuck()),
            f"watcher 'web': 'args': <stuck> is no text, number, list or mapping; {NOT_HERE}",
        ),
        (
            web(stdout_stream={"stream": Stuck()}),
            f"watcher 'web': 'stdout_stream': 'stream' is an object of this program's; {NOT_HERE}; "
            "name a 'class' or a 'filename'",
        ),
        (
            web(hooks={"before_start": "a.b"}),
            "watcher 'web': 'hooks': 'before_start' is 'a.b'; write ('module.function', False)",
        ),
    ],
)
def test_what_is_wrong_with_a_watcher_is_told_in_one_line(watcher: Any, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        Arbiter(watchers=[watcher])
    assert str(caught.value) == told


def test_a_hook_without_a_name_in_a_module_is_refused() -> None:
    def inner() -> bool:
        return True

    for hook in (lambda: True, inner, threading.Event().wait):
        with pytest.raises(SpecError) as caught:
            plan(web(hooks={"after_stop": (hook, False)}))
        told = str(caught.value)
        assert told.startswith("watcher 'web': 'hooks': <")
        assert f"has no name in a module; {NOT_HERE}; give a function of a module's" in told
        assert "\n" not in told


def test_a_hook_of_the_program_s_own_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_function, "__module__", "__main__")
    with pytest.raises(SpecError, match="known_function is in the program that was started; put"):
        plan(web(hooks={"after_stop": (known_function, False)}))


def test_a_function_of_a_module_goes_by_its_name() -> None:
    found = plan(web(hooks={"after_stop": (known_function, True)}), prereload_fn=known_function)
    name = f"{__name__}:known_function"
    assert found["watchers"][0]["hooks"] == {"after_stop": [name, True]}
    assert found["options"]["prereload_fn"] == name
    assert found["path"] == sys.path


def test_a_watcher_is_named_after_its_command_as_in_circus() -> None:
    given: Mapping[str, Any] = {"cmd": "/usr/bin/serve --port 80", "working_dir": Path("/srv")}
    (watcher,) = plan(given)["watchers"]
    assert watcher == {"cmd": given["cmd"], "name": "serve", "working_dir": "/srv"}
    assert "name" not in given


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"watchers": {"cmd": "a"}}, "'watchers' is a list; write watchers=[{"),
        ({"watchers": "serve"}, "'watchers' is a list; write watchers=[{"),
        ({"watchers": [], "circusd": {"httpd": Stuck()}}, "'httpd': <stuck> is no text, number"),
        ({"circusd": {"debug": True}}, "'circusd' is for one that is started here; give 'watch"),
        (
            {"watchers": [], "circusd": {"loglvl": "info"}},
            "circusd has no option 'loglvl' (did you mean 'loglevel'?)",
        ),
        ({"watchers": [], "circusd": {"sockets": [Stuck()]}}, "'sockets': <stuck> is no socket; "),
        (
            {"watchers": [], "ssh_server": "me@there"},
            "'ssh_server' leads to a circusd on another machine, 'watchers' are for one that is "
            "started here; give one of them",
        ),
        ({"watchers": [], "endpoint": "nonsense"}, "'endpoint': 'nonsense' is no ZMQ endpoint"),
    ],
)
def test_what_is_wrong_with_circusd_s_options_is_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        Arbiter(**arguments)
    assert str(caught.value).startswith(told)


class Plugin(CircusPlugin):
    def handle_recv(self, data: Any) -> None:
        pass


def test_get_arbiter_says_where_plugins_go() -> None:
    with pytest.raises(SpecError, match=r"is no watcher; .*plugins go into 'plugins'"):
        get_arbiter([Plugin])  # type: ignore[list-item]


def test_get_arbiter_takes_what_circus_passes_over_and_tells_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "circusplug"):
        get_arbiter([web(max_retry_in=60), web(cmd="other")], env={"A": "b"}, stop_timeout=3)
    assert [record.getMessage() for record in caplog.records] == [
        "'env' does nothing, as in Circus; give it to a watcher",
        "watcher 'web': 'max_retry_in' does nothing: a watcher has no such option (did you mean "
        "'max_retry'?)",
        "watchers share the name 'web'; commands reach the last one: give each a 'name'",
    ]


def test_get_arbiter_refuses_a_loop() -> None:
    with pytest.raises(SpecError, match="'loop' cannot be used"):
        get_arbiter([], loop=object())  # type: ignore[arg-type]


def test_circusd_gets_the_time_that_its_slowest_watcher_needs() -> None:
    def grace(*watchers: Any) -> float:
        return plan_circusd(HostConfig(), watchers, {}).grace

    assert grace(web(graceful_timeout=2), web(graceful_timeout="60")) == 65
    assert grace(web(graceful_timeout=2), web()) == 35
    assert grace() == 5
    assert plan_circusd(HostConfig(circusd_timeout=7.0), (), {}).start_timeout == 7.0


def test_circusd_is_told_where_the_host_will_look_for_it() -> None:
    config = HostConfig(
        endpoint="tcp://127.0.0.1:1", pubsub_endpoint="tcp://127.0.0.1:2", check_delay=3.0
    )
    options = {"umask": 7, "controller": "tcp://127.0.0.1:9"}
    with pytest.raises(SpecError, match="circusd has no option 'controller'"):
        plan_circusd(config, (), options)
    del options["controller"]
    assert json.loads(plan_circusd(config, (), options).text)["options"] == {
        "umask": 7,
        "controller": "tcp://127.0.0.1:1",
        "pubsub_endpoint": "tcp://127.0.0.1:2",
        "check_delay": 3.0,
    }


def test_what_a_watcher_leaves_empty_stays_empty() -> None:
    (watcher,) = plan(web(hooks=None, env=None, args=("a", 1), stdout_stream=None))["watchers"]
    assert (watcher["hooks"], watcher["env"]) == ({}, {})
    assert (watcher["args"], watcher["stdout_stream"]) == (["a", 1], None)


@pytest.mark.parametrize(
    ("level", "told"),
    [(logging.DEBUG, "debug"), (5, "debug"), (25, "info"), (logging.CRITICAL, "critical")],
)
def test_circusd_logs_what_the_program_would(level: int, told: str) -> None:
    logger = logging.getLogger("circus")
    before = logger.level
    logger.setLevel(level)
    try:
        assert plan()["loglevel"] == told
    finally:
        logger.setLevel(before)


def test_the_known_options_are_those_of_circus() -> None:
    from circus.arbiter import Arbiter as Theirs
    from circus.watcher import Watcher

    of_watcher = set(inspect.signature(Watcher.__init__).parameters) - {"self", "options", "loop"}
    assert of_watcher == WATCHER_OPTIONS
    ours = {"self", "watchers", "endpoint", "pubsub_endpoint", "check_delay", "context", "loop"}
    of_arbiter = set(inspect.signature(Theirs.__init__).parameters) - ours
    assert of_arbiter - {"plugins", "ssh_server"} == CIRCUSD_OPTIONS - {"stream_backend"}
