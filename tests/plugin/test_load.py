# From the `use` of a plugin to its class, or one clear line why not.

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circusplug import CircusPlugin, PluginLoadError, PluginSpec
from circusplug._plugin.load import (
    _refusal,
    is_circus_plugin,
    load_checked,
    load_plugin_class,
    load_problems,
    short_name,
    watcher_problems,
)

_MODULE = """
import json
from circusplug import CircusPlugin

class Logger(CircusPlugin):
    def handle_recv(self, data):
        pass

class Deaf(CircusPlugin):
    pass

class Awaits(Logger):
    async def handle_stop(self):
        pass

class Inherits(Logger):
    pass

class Eventless(CircusPlugin):
    def handle_recv(self):
        pass

class Greedy(CircusPlugin):
    def handle_recv(self, watcher, action):
        pass

class Stranger:
    def handle_recv(self, data):
        pass

def function():
    pass
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package `loadable` with modules that work and modules that do not."""
    folder = tmp_path / "loadable"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "plugins": _MODULE,
        "needs": "import not_installed_anywhere\n",
        "needs_own": "import loadable.absent\n",
        "fails": "raise ZeroDivisionError('at the top')\n",
        "exits": "import sys\nsys.exit('bye')\n",
        "cancels": "import asyncio\nraise asyncio.CancelledError('never mind')\n",
        "lazy": "def __getattr__(name):\n    raise ImportError(f'cannot make {name}')\n",
        "broken": "def f(:\n",
        "wants_name": "from loadable.plugins import NoSuchName\n",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "loadable"
    for name in [name for name in sys.modules if name.partition(".")[0] == "loadable"]:
        del sys.modules[name]


@pytest.mark.parametrize("use", ["loadable.plugins.Logger", " loadable.plugins:Logger "])
def test_a_dotted_name_becomes_the_class(use: str) -> None:
    found = load_plugin_class(use)
    assert (found.__module__, found.__name__) == ("loadable.plugins", "Logger")


def test_a_class_is_checked_and_returned() -> None:
    found = load_plugin_class("loadable.plugins.Inherits")
    assert load_plugin_class(found) is found
    with pytest.raises(PluginLoadError, match=r"loadable\.plugins\.Deaf has no handle_recv"):
        load_plugin_class(sys.modules["loadable.plugins"].Deaf)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            "Logger",
            "'use' names 'Logger', which is no dotted name; write package.module.Class",
        ),
        (".Logger", "'use' names '.Logger', which is no dotted name; write package.module.Class"),
        (
            "loadable.plugins.",
            "'use' names 'loadable.plugins.', which is no dotted name; write package.module.Class",
        ),
        (
            "loadable.plugins.Loger",
            "'use' names loadable.plugins.Loger, but module loadable.plugins has no 'Loger' "
            "(did you mean 'Logger'?)",
        ),
        (
            "circusplug.plugins.Loger",
            "'use' names circusplug.plugins.Loger, but module circusplug.plugins has no 'Loger' "
            "(did you mean 'Logger'?)",
        ),
        (
            "loadable.plugins.Zzz",
            "'use' names loadable.plugins.Zzz, but module loadable.plugins has no 'Zzz'",
        ),
        (
            "loadable.plugins.function",
            "'use' names loadable.plugins.function, which is a function, not a class",
        ),
        (
            "loadable.plugins.Stranger",
            "loadable.plugins.Stranger is no plugin; derive it from circusplug.CircusPlugin",
        ),
        (
            "loadable.plugins.Deaf",
            "loadable.plugins.Deaf has no handle_recv(self, data); a plugin must define it",
        ),
        (
            "loadable.plugin.Logger",
            "'use' names loadable.plugin.Logger, but there is no module 'loadable.plugin' (did you "
            "mean 'loadable.plugins'?); install it, or put its directory into PYTHONPATH",
        ),
        (
            "nowhere.to.be.Found",
            "'use' names nowhere.to.be.Found, but there is no module 'nowhere'; install it, or put "
            "its directory into PYTHONPATH",
        ),
        (
            "loadable.needs.Logger",
            "'use' names loadable.needs.Logger, but importing loadable.needs needs "
            "'not_installed_anywhere'; install it",
        ),
        (
            "loadable.needs_own.Logger",
            "'use' names loadable.needs_own.Logger, but importing loadable.needs_own needs "
            "'loadable.absent'; install it",
        ),
        (
            "loadable.fails.Logger",
            "'use' names loadable.fails.Logger, but importing loadable.fails failed: "
            "ZeroDivisionError: at the top",
        ),
        (
            "loadable.exits.Logger",
            "'use' names loadable.exits.Logger, but importing loadable.exits failed: "
            "SystemExit: bye",
        ),
        (
            "loadable.cancels.Logger",
            "'use' names loadable.cancels.Logger, but importing loadable.cancels failed: "
            "CancelledError: never mind",
        ),
        (
            "loadable.lazy.Logger",
            "'use' names loadable.lazy.Logger, but importing loadable.lazy failed: "
            "ImportError: cannot make Logger",
        ),
        (
            "loadable.plugins.Awaits",
            "loadable.plugins.Awaits: handle_stop runs when the plugin's loop has ended, so it "
            "cannot be async; make it a plain function (call and cast work in it)",
        ),
        (
            "loadable.plugins.Eventless",
            "loadable.plugins.Eventless: handle_recv is called with one event (too many positional "
            "arguments); write handle_recv(self, data)",
        ),
        (
            "loadable.plugins.Greedy",
            "loadable.plugins.Greedy: handle_recv is called with one event (missing a required "
            "argument: 'action'); write handle_recv(self, data)",
        ),
    ],
)
def test_a_use_that_cannot_be_loaded_says_why(use: str, message: str) -> None:
    with pytest.raises(PluginLoadError) as caught:
        load_plugin_class(use)
    assert str(caught.value) == message
    with pytest.raises(PluginLoadError) as caught:
        load_plugin_class(use, "circus.ini: [plugin:logger]")
    assert str(caught.value) == f"circus.ini: [plugin:logger]: {message}"


@pytest.mark.parametrize(
    ("use", "message", "cause"),
    [
        ("loadable.broken.Logger", "importing loadable.broken failed: SyntaxError", SyntaxError),
        ("loadable.wants_name.Logger", "cannot import name 'NoSuchName'", ImportError),
        ("loadable.fails.Logger", "at the top", ZeroDivisionError),
        ("loadable.needs.Logger", "install it", ModuleNotFoundError),
    ],
)
def test_a_failing_import_keeps_its_cause(
    use: str, message: str, cause: type[BaseException]
) -> None:
    with pytest.raises(PluginLoadError, match=message) as caught:
        load_plugin_class(use)
    assert isinstance(caught.value.__cause__, cause)


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function with one argument more than it is called with."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, "more", **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "handler",
    [
        lambda self, data, more=None: None,
        lambda *args: None,
        staticmethod(lambda data: None),
        functools.partialmethod(lambda self, more, data: None, 1),
        _wrapping(lambda self, data, more: None),
    ],
)
def test_any_handler_that_takes_an_event_will_do(handler: Any) -> None:
    found = type("Fine", (CircusPlugin,), {"handle_recv": handler})
    assert load_plugin_class(found) is found


def test_a_handler_of_a_class_made_for_circus_has_to_take_an_event_as_well() -> None:
    base = pytest.importorskip("circus.plugins").CircusPlugin
    found = type("Eventless", (base,), {"handle_recv": lambda self: None})
    with pytest.raises(PluginLoadError, match=r"Eventless: handle_recv is called with one event"):
        load_plugin_class(found)


class Strict(CircusPlugin):
    def handle_recv(self, data):
        pass

    def __init__(self, endpoint, pubsub_endpoint, check_delay, ssh_server, name, level="x"):
        super().__init__(endpoint, pubsub_endpoint, check_delay, ssh_server, name=name)


def test_a_constructor_has_to_take_the_options_of_its_section() -> None:
    assert load_checked(PluginSpec("a", Strict, {"name": "plugin:a", "level": "y"})) is Strict
    with pytest.raises(PluginLoadError) as caught:
        load_checked(PluginSpec("a", Strict, {"name": "plugin:a", "colour": "y"}, where="x.ini"))
    assert str(caught.value) == (
        f"x.ini: {__name__}.Strict: its __init__ does not take its options (got an unexpected "
        "keyword argument 'colour'); write __init__(self, *args, **config)"
    )
    with pytest.raises(PluginLoadError, match=r"\(missing a required argument: 'name'\)"):
        load_checked(PluginSpec("a", Strict))


def test_ctrl_c_during_an_import_is_no_load_error(tmp_path: Path) -> None:
    (tmp_path / "loadable" / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_plugin_class("loadable.interrupted.Logger")


def test_only_a_class_made_for_circus_is_one() -> None:
    assert not is_circus_plugin(CircusPlugin)
    assert not is_circus_plugin(object)
    base = type("CircusPlugin", (), {"__module__": "circus.plugins"})
    assert is_circus_plugin(type("Mine", (base,), {}))


class Wrong(CircusPlugin):
    def handle_recv(self, data):
        pass

    @classmethod
    def check_config(cls, config):
        raise config["error"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(ZeroDivisionError("a defect"), "ZeroDivisionError: a defect"), (SystemExit(3), "3")],
)
def test_whatever_a_plugin_s_own_check_raises_is_one_line(error: BaseException, told: str) -> None:
    spec = PluginSpec("a", Wrong, {"error": error}, where="x.ini: [plugin:a]")
    (line,) = load_problems(spec)
    assert line.startswith("x.ini: [plugin:a]: ")
    assert told in line


def test_only_declared_options_can_be_a_watcher_s_own() -> None:
    assert watcher_problems(PluginSpec("a", Strict), [("x.ini:3", "strict.level", "1")]) == []


def test_a_plugin_without_a_name_of_its_own_is_called_as_its_class() -> None:
    named = type("Named", (CircusPlugin,), {"name": "given"})
    assert short_name(named) == "given"
    assert short_name(type("Heir", (named,), {})) == "Heir"
    assert short_name(type("Nobody", (named,), {"name": None})) == "Nobody"


def test_what_does_not_tell_what_it_takes_is_let_through() -> None:
    assert _refusal(7) == ""
