# Code that was edited on disk is loaded by a restart and by a reload, for plugins on threads, too;
# or it is refused, and all stays as it was.

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from edited_files import Files, plugin
from members import Acts, Journal, MakeHost, Member, member, state_is
from patience import PATIENCE

from circusplug import Arbiter, ConfigError, HostConfig, HostError
from circusplug._host.engine import Engine
from circusplug._plugin.edited_code import importing_anew, wait_until_imported
from circusplug.testing import FakeCircusd


def using(*names: str, use: str = "edited_one.Plugin", **options: Any) -> list[dict[str, Any]]:
    return [member(name, use, **options) for name in names]


def reload(arbiter: Arbiter) -> list[str]:
    return arbiter.reconfigure(arbiter.config)


ORDERS: list[Callable[[Arbiter], object]] = [reload, lambda arbiter: arbiter.restart_plugin("a")]
by_each_order = pytest.mark.parametrize("order", ORDERS, ids=["reload", "restart"])


@by_each_order
def test_an_edited_module_is_loaded_anew(
    order: Callable[[Arbiter], object], host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("1"))
    with host(*using("a")) as arbiter:
        files.write("edited_one.py", plugin("2"))
        order(arbiter)
        journal.wait("a", "init 2")
        new = sys.modules["edited_one"]
        assert reload(arbiter) == []
        assert sys.modules["edited_one"] is new
    assert journal.of("a") == ["init 1", "stop", "init 2", "stop"]


def test_a_reload_restarts_those_that_use_what_was_edited_and_nobody_else(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_base.py", plugin("LIMIT", "from edited_limit import LIMIT"))
    files.write("edited_limit.py", "LIMIT = 1")
    files.write("edited_one.py", "from edited_base import Plugin as Base\nclass Plugin(Base): pass")
    files.write("edited_two.py", plugin("9", "import edited_other"))
    files.write("edited_other.py", "")
    with host(*using("a", "b"), *using("c", use="edited_two.Plugin"), member("d")) as arbiter:
        untouched = sys.modules["edited_two"], sys.modules["edited_other"]
        files.write("edited_limit.py", "LIMIT = 2")
        assert reload(arbiter) == [
            "restarted a with edited code",
            "restarted b with edited code",
        ]
        assert (sys.modules["edited_two"], sys.modules["edited_other"]) == untouched
        arbiter.stop_plugin("b")
        files.write("edited_limit.py", "LIMIT = 3")
        assert reload(arbiter) == ["restarted a with edited code"]
    assert journal.of("a") == ["init 1", "stop", "init 2", "stop", "init 3", "stop"]
    assert journal.of("b") == ["init 1", "stop", "init 2", "stop"]
    assert journal.of("c") == ["init 9", "stop"]
    assert journal.of("d") == ["init", "stop"]


def test_a_restart_by_hand_restarts_those_that_share_the_module_but_none_that_is_stopped(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("1"))
    with host(*using("a", "b", "c")) as arbiter:
        arbiter.stop_plugin("c")
        files.write("edited_one.py", plugin("2"))
        arbiter.start_plugin("a")  # it runs already
        assert journal.of("a") == ["init 1"]
        arbiter.restart_plugin("a")
        assert arbiter.plugins["c"].state == "stopped"
        arbiter.start_plugin("c")
        files.write("edited_one.py", plugin("3"))
        arbiter.stop_plugin("c")
        arbiter.start_plugin("c")  # a start of one that is stopped does so, too
    assert journal.of("a") == journal.of("b")
    assert journal.of("a") == ["init 1", "stop", "init 2", "stop", "init 3", "stop"]
    assert journal.of("c") == ["init 1", "stop", "init 2", "stop", "init 3", "stop"]


def test_packages_with_relative_imports_in_a_circle_are_loaded_anew(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_pack/__init__.py", "")
    files.write("edited_pack/limits.py", "from . import plugins\nLIMIT = 1")
    files.write("edited_pack/sub/__init__.py", "from ..limits import *")
    files.write("edited_pack/plugins.py", plugin("limits.LIMIT", "from . import limits, sub"))
    files.write("edited_pack/other.py", "")
    other = importlib.import_module("edited_pack.other")
    with host(*using("a", use="edited_pack.plugins.Plugin")) as arbiter:
        package = sys.modules["edited_pack"]
        files.write("edited_pack/limits.py", "from . import plugins\nLIMIT = 2")
        reload(arbiter)
        assert sys.modules["edited_pack"] is package
        assert sys.modules["edited_pack.other"] is other
        for name in ("plugins", "limits", "sub"):
            assert getattr(package, name) is sys.modules[f"edited_pack.{name}"]
        assert package.sub.LIMIT == 2
        files.write("edited_pack/__init__.py", "LIMIT = 3")
        reload(arbiter)
        assert sys.modules["edited_pack"].LIMIT == 3
        assert sys.modules["edited_pack.plugins"].limits.LIMIT == 2
    assert journal.of("a") == ["init 1", "stop", "init 2", "stop", "init 2", "stop"]


BROKEN = {
    "syntax": ("class Plugin(", "SyntaxError"),
    "import": ("import edited_pack.new\nimport no_such_module", "needs 'no_such_module'"),
    "class": ("import edited_pack.new\nclass Plugins: pass", "has no 'Plugin'"),
    "check": (
        plugin("2", "from circusplug import SpecError")
        + "    @classmethod\n    def check_config(cls, config): raise SpecError('cannot be')",
        "plugin 'a': cannot be",
    ),
}


@by_each_order
@pytest.mark.parametrize("why", BROKEN)
def test_code_that_is_no_good_leaves_the_old_life_running_and_the_old_modules_in_place(
    why: str, order: Callable[[Arbiter], object], host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_pack/__init__.py", "")
    files.write("edited_pack/limits.py", "LIMIT = 1")
    files.write("edited_pack/plugins.py", plugin("limits.LIMIT", "from . import limits"))
    text, said = BROKEN[why]
    with host(*using("a", "b", use="edited_pack.plugins.Plugin")) as arbiter:
        before = arbiter.instance("a")
        names = [name for name in sys.modules if name.startswith("edited")]
        old = [sys.modules[name] for name in names]
        inside = dict(vars(sys.modules["edited_pack"]))
        files.write("edited_pack/limits.py", "LIMIT = 2")
        files.write("edited_pack/new.py", "from .limits import LIMIT")
        files.write("edited_pack/plugins.py", text)
        for _ in range(2):
            with pytest.raises(ConfigError, match=said):
                order(arbiter)
            assert {name for name in sys.modules if name.startswith("edited")} == set(names)
            assert all(sys.modules[name] is module for name, module in zip(names, old, strict=True))
            assert vars(sys.modules["edited_pack"]) == inside
            assert arbiter.instance("a") is before
        assert journal.of("a") == ["init 1"]
        files.write("edited_pack/plugins.py", plugin("new.LIMIT", "from . import new"))
        order(arbiter)
    assert journal.of("a") == journal.of("b") == ["init 1", "stop", "init 2", "stop"]


def test_a_change_that_fails_for_another_reason_puts_the_old_code_back(
    host: MakeHost, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[str]:
        raise HostError("no ssh tunnel")

    files.write("edited_one.py", plugin("1"))
    with host(*using("a")) as arbiter:
        old = sys.modules["edited_one"]
        files.write("edited_one.py", plugin("2"))
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "reconfigure", fail)
            with pytest.raises(HostError):
                reload(arbiter)
        assert sys.modules["edited_one"] is old
        assert reload(arbiter) == ["restarted a with edited code"]


def test_a_module_that_is_imported_by_handle_init_counts(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("LIMIT", lazily="from edited_limit import LIMIT"))
    files.write("edited_limit.py", "LIMIT = 1")
    with host(*using("a")) as arbiter:
        files.write("edited_limit.py", "LIMIT = 2")
        assert reload(arbiter) == ["restarted a with edited code"]
    assert journal.of("a") == ["init 1", "stop", "init 2", "stop"]


def test_a_plugin_that_could_not_be_imported_is_tried_again_with_edited_code(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("LIMITS", "from edited_more import LIMITS"))
    files.write("edited_more.py", "LIMIT = 1")
    with host(*using("a", **{"host.max_restarts": 0})) as arbiter:
        arbiter.wait(state_is("a", "failed"), PATIENCE)
        files.write("edited_more.py", "LIMITS = 3")
        assert reload(arbiter) == ["tried a again"]
        journal.wait("a", "init 3")


def test_a_restart_by_hand_restarts_those_whose_own_modules_import_what_was_edited(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    for name in ("edited_one.py", "edited_two.py"):
        files.write(name, plugin("LIMIT", "from edited_limit import LIMIT"))
    files.write("edited_limit.py", "LIMIT = 1")
    with host(*using("a"), *using("b", use="edited_two.Plugin")) as arbiter:
        files.write("edited_limit.py", "LIMIT = 2")
        arbiter.restart_plugin("a")
    assert journal.of("a") == journal.of("b") == ["init 1", "stop", "init 2", "stop"]


def test_a_class_given_as_an_object_is_kept_and_can_still_be_sent_to_a_process(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("1"))
    given = importlib.import_module("edited_one").Plugin
    alone = {"isolate": True, "active": False, "journal": None, "release": None}
    with host(*using("a"), member("b", given), member("c", given, **alone)) as arbiter:
        files.write("edited_one.py", plugin("2"))
        assert reload(arbiter) == ["restarted a with edited code"]
        arbiter.restart_plugin("b")
        assert type(arbiter.instance("b")) is given
        arbiter.restart_plugin("c")  # there is no journal there, and it comes as far as that
        arbiter.wait(lambda now: "AttributeError" in str(now["c"].last_error), PATIENCE)
    assert journal.of("b") == ["init 1", "stop", "init 1", "stop"]


def test_libraries_and_python_s_own_modules_are_left_alone_but_for_a_plugin_s_own(
    host: MakeHost, journal: Journal, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = "site-packages/edited_lib"
    monkeypatch.syspath_prepend(files.directory / "site-packages")
    files.write(f"{library}/__init__.py", "LIMIT = 1")
    files.write("site-packages/edited_beside.py", "LIMIT = 1")
    imports = "import json, zmq, circusplug, edited_beside"
    files.write("edited_one.py", plugin("LIMIT", f"{imports}\nfrom edited_lib import LIMIT"))
    before = dict(sys.modules)
    with host(*using("a")) as arbiter:
        files.write(f"{library}/__init__.py", "LIMIT = 2")
        assert reload(arbiter) == []
        files.write(f"{library}/plugins.py", plugin("LIMIT", f"{imports}\nfrom . import LIMIT"))
        arbiter.add_plugin(
            {**using("b", use="edited_lib.plugins.Plugin")[0], "journal": journal, "release": 0}
        )
        files.write(f"{library}/__init__.py", "LIMIT = 3")
        files.write("site-packages/edited_beside.py", "LIMIT = 3")
        done = ["restarted a with edited code", "restarted b with edited code"]
        assert reload(arbiter) == done
        assert sys.modules["edited_beside"].LIMIT == 1
        assert all(sys.modules[name] is module for name, module in before.items())
    assert journal.of("b") == ["init 1", "stop", "init 3", "stop"]


def test_a_plugin_restarts_itself_with_its_edited_code(
    host: MakeHost, journal: Journal, files: Files, fake_circusd: FakeCircusd
) -> None:
    files.write("edited_one.py", plugin("1") + "    handle_recv = Acts.handle_recv\n")
    files.write(
        "edited_one.py", plugin("1", "from members import Acts").replace("Member)", "Acts)")
    )
    with host(*using("a", act=lambda: arbiter.restart_plugin("a"))) as arbiter:
        fake_circusd.wait_subscribed(1)
        files.write("edited_one.py", plugin("2"))
        fake_circusd.publish("web", "spawn")
        journal.wait("a", "init 2")
    assert journal.of("a") == ["init 1", "spawn", "stop", "init 2", "stop"]
    assert issubclass(Acts, Member)


def test_who_loads_a_module_that_is_being_imported_anew_waits_and_nobody_else(
    files: Files,
) -> None:
    files.write("edited_one.py", "")
    importlib.import_module("edited_one")
    through = threading.Event()

    def load() -> None:
        wait_until_imported("edited_other")
        begun.set()
        wait_until_imported("edited_one")
        found.append("edited_one" in sys.modules)
        through.set()

    begun, found = threading.Event(), list[bool]()
    thread = threading.Thread(target=load)
    with importing_anew({"edited_one"}):
        wait_until_imported("edited_one")  # not for oneself
        thread.start()
        assert begun.wait(PATIENCE)
        importlib.import_module("edited_one")
    assert through.wait(PATIENCE)
    thread.join()
    assert found == [True]


def test_an_isolated_plugin_starts_with_edited_code(
    fake_circusd: FakeCircusd, files: Files, unhurried: None
) -> None:
    text = (
        "from circusplug import CircusPlugin\n"
        "class Plugin(CircusPlugin):\n"
        "    handle_recv = print\n"
        "    def handle_init(self): self.cast('say', what={})\n"
    )
    files.write("edited_one.py", text.format(1))
    spec = {"use": "edited_one.Plugin", "name": "a", "isolate": True}
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    with Arbiter([spec], *ends) as arbiter:
        fake_circusd.wait_command("say", timeout=PATIENCE, what=1)
        files.write("edited_one.py", text.format(22))
        arbiter.restart_plugin("a")
        fake_circusd.wait_command("say", timeout=PATIENCE, what=22)
    assert "edited_one" not in sys.modules


def test_edited_code_and_a_changed_configuration_go_together(
    host: MakeHost, journal: Journal, files: Files
) -> None:
    files.write("edited_one.py", plugin("1"))
    with host(*using("a", "b", "c")) as arbiter:
        a, b, c = arbiter.config.plugins
        files.write("edited_one.py", plugin("2"))
        changed = replace(b, config={**b.config, "colour": "red"})
        new: HostConfig = replace(arbiter.config, plugins=(a, changed))
        assert arbiter.reconfigure(new) == [
            "removed c",
            "changed b",
            "restarted a with edited code",
        ]
    assert journal.of("a") == journal.of("b") == ["init 1", "stop", "init 2", "stop"]
    assert journal.of(c.name) == ["init 1", "stop"]
