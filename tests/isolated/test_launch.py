# What an isolated plugin's process is told first, and what a host asks of one that only looks at a
# class.

from __future__ import annotations

import concurrent.futures
import os
import pickle
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from circusplug import HostConfig, HostOptions, PluginSpec
from circusplug._isolated import class_check, launch
from circusplug._isolated.class_check import check_classes
from circusplug._isolated.launch import launch_for
from circusplug._isolated.process_setup import describe_main
from circusplug._runners.runner import Kind, Notice, Surroundings
from circusplug._wire.endpoints import Link

SPEC = PluginSpec("one", "absent.Plugin", isolate=True, host=HostOptions(nice=3))


def around(**config: Any) -> Surroundings:
    context: Any = lambda: None  # noqa: E731 - what cannot be pickled
    return Surroundings(
        HostConfig(**config), Link("tcp://there:1", context=context), lambda _: None
    )


def test_a_process_is_told_of_its_own_plugin_and_of_no_other() -> None:
    other = PluginSpec("other", "absent.Plugin", config={"password": "swordfish"})
    told = launch_for(SPEC, around(plugins=(other, SPEC), stop_timeout=7.0), '{"n": 1}', False)
    assert b"swordfish" not in told.plugin
    spec, config, link, state = pickle.loads(told.plugin)
    assert (spec, config.plugins, state) == (SPEC, (), '{"n": 1}')
    assert (link.endpoint, link.context) == ("tcp://there:1", None)
    assert (told.host, told.stop_timeout, told.only_check) == (SPEC.host, 7.0, False)
    assert (told.argv, told.directory, told.main) == (sys.argv, os.getcwd(), {})
    assert launch_for(SPEC, around(), None, True).only_check


def test_the_hosts_path_means_the_same_in_another_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["", "/one"])
    assert launch_for(SPEC, around(), None, False).path == [os.getcwd(), "/one"]

    def fail() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", fail)  # somebody has removed it
    told = launch_for(SPEC, around(), None, False)
    assert (told.path, told.directory) == (["/", "/one"], None)


def test_a_class_whose_module_was_imported_anew_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("of_before")
    monkeypatch.setitem(sys.modules, "of_before", module)
    old, new = (type("Plugin", (), {"__module__": "of_before"}) for _ in range(2))
    module.Plugin = new  # type: ignore[attr-defined]
    assert launch._named(PluginSpec("one", old)).use == "of_before.Plugin"
    assert launch._named(PluginSpec("one", new)).use is new
    module.Plugin = "no class any more"  # type: ignore[attr-defined]
    assert launch._named(PluginSpec("one", old)).use is old


def test_the_main_script_goes_by_its_module_or_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    main: Any = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert describe_main() == {}  # python -c
    main.__file__ = "script.py"
    assert describe_main() == {"init_main_from_path": os.path.join(os.getcwd(), "script.py")}
    main.__spec__ = SimpleNamespace(name="package.__main__")
    assert describe_main() == {"init_main_from_name": "package.__main__"}


# Looking at classes.


class Looking:
    """Stands for a runner that only looks: tells its end, or nothing."""

    ends: dict[str, Notice | None]
    abandoned: list[str]
    started: list[str]
    over: concurrent.futures.Future[None]

    def __init__(
        self, spec: PluginSpec, around: Surroundings, *rest: Any, only_check: bool
    ) -> None:
        assert only_check
        self._name = spec.name
        self._notify = around.notify

    def start(self) -> None:
        self.started.append(self._name)
        end = self.ends[self._name]
        runner: Any = self
        self._notify(Notice(runner, Kind.BEGUN))
        if end is not None:
            self._notify(end)
        elif self._name == "last":
            self.over.set_result(None)

    def abandon(self) -> None:
        self.abandoned.append(self._name)


def ended(error: str | None, permanent: bool = False) -> Notice:
    runner: Any = None
    return Notice(runner, Kind.ENDED, error, permanent)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> type[Looking]:
    monkeypatch.setattr(class_check, "ProcessRunner", Looking)
    for name, value in (
        ("ends", {}),
        ("abandoned", []),
        ("started", []),
        ("over", concurrent.futures.Future()),
    ):
        monkeypatch.setattr(Looking, name, value, raising=False)
    return Looking


def test_what_is_wrong_with_classes_is_told_in_the_order_of_the_plugins(
    looking: type[Looking],
) -> None:
    looking.ends = {
        "a": ended("plugin 'a': no such option", permanent=True),
        "b": ended(None),
        "c": ended("its process was killed by SIGKILL"),
        "d": None,
    }
    host = HostOptions(start_timeout=0.01)
    specs = [PluginSpec(name, "absent.Plugin", host=host) for name in looking.ends]
    assert check_classes(specs, HostConfig(), looking.over) == [
        "plugin 'a': no such option",
        "plugin 'c': its process was killed by SIGKILL",
        "plugin 'd': the class of absent.Plugin is not loaded after 0.01 s",
    ]
    assert looking.abandoned == ["d"]


def test_a_host_that_is_over_waits_for_no_class(looking: type[Looking]) -> None:
    looking.ends = {"last": None}
    host = HostOptions(start_timeout=1000.0)
    specs = [PluginSpec("last", "absent.Plugin", host=host)]
    check_classes(specs, HostConfig(), looking.over)
    assert looking.abandoned == ["last"]
    assert check_classes(specs, HostConfig(), looking.over) == []
    assert looking.started == ["last"]  # the second time there was nothing to start for
