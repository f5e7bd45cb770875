# Plugins that read the real clock: found where that is wanted, and Circus's own led to the virtual
# one.

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from members import in_thread

from circusplug._loop.plugin_loop import PluginLoop
from circusplug.testing._circus_clock import _Timer, circus_lives_by
from circusplug.testing._clock_readers import ClockReaders
from circusplug.testing._virtual_clock import EPOCH, VirtualClock

READS = """
import datetime, time
def look():
    {call}
"""


def told(call: str, module: str, of: str = "pack.plugins") -> list[str]:
    """What is told of a call in a module, beside a plugin of another one."""
    names: dict[str, Any] = {"__name__": module}
    exec(compile(READS.format(call=call), "<file>", "exec"), names)
    found: list[str] = []
    before = threading.getprofile()
    with ClockReaders(type("Plugin", (), {"__module__": of}), found.append):
        in_thread(lambda: [names["look"]() for _ in range(2)])
    assert threading.getprofile() is before
    return found


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        ("time.time()", "self.now()"),
        ("time.time_ns()", "self.now()"),
        ("time.localtime()", "self.now()"),
        ("time.gmtime()", "self.now()"),
        ("time.monotonic()", "self.loop.time()"),
        ("time.monotonic_ns()", "self.loop.time()"),
        ("time.perf_counter()", "self.loop.time()"),
        ("time.sleep(0)", "asyncio.sleep, or self.loop.call_later"),
        ("datetime.datetime.now()", "self.now()"),
        ("datetime.date.today()", "self.now()"),
    ],
)
def test_each_way_to_read_the_real_clock_is_told_of_once(call: str, instead: str) -> None:
    (line,) = told(call, "pack.plugins")
    assert line.startswith("<file>:4 calls ")
    assert line.endswith(f"(), which is of the real clock; use {instead}")


@pytest.mark.parametrize(
    ("call", "module", "of", "times"),
    [
        ("time.time()", "pack", "pack.plugins", 1),
        ("time.time()", "pack.other.deep", "pack.plugins", 1),
        ("time.time()", "packet", "pack.plugins", 0),
        ("time.time()", "circusplug.plugins.other", "circusplug.plugins.alert", 1),
        ("time.time()", "circusplug._loop.periodic", "circusplug.plugins.alert", 0),
        ("datetime.datetime(2027, 1, 1).isoformat()", "pack", "pack.plugins", 0),
        ("[].append(1)", "pack", "pack.plugins", 0),
    ],
)
def test_nothing_else_is_told_of_and_nobody_else(
    call: str, module: str, of: str, times: int
) -> None:
    assert len(told(call, module, of)) == times


# Circus's own plugins.


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A module of Circus's, one of somebody else's, both with a clock."""
    made = {}
    for name in ("circus.plugins.anything", "somebody.anything"):
        made[name] = types.ModuleType(name)
        vars(made[name]).update(time=time, Timer=threading.Timer)
        monkeypatch.setitem(sys.modules, name, made[name])
    return made


def test_a_module_of_circus_s_has_the_virtual_clock_meanwhile_and_no_other_one(
    modules: dict[str, Any],
) -> None:
    clock = VirtualClock()
    clock.now = 5.0
    theirs, other = modules.values()

    def look_and_fail(module: Any) -> None:
        if module is theirs:
            assert (module.time.time(), module.time.monotonic()) == (EPOCH + 5.0, 5.0)
            assert module.Timer is _Timer
        else:
            assert (module.time, module.Timer) == (time, threading.Timer)
        raise ZeroDivisionError

    for module in (theirs, other):
        plugin = type("Plugin", (), {"__module__": module.__name__})
        with pytest.raises(ZeroDivisionError), circus_lives_by(clock, plugin):
            look_and_fail(module)
        assert (module.time, module.Timer) == (time, threading.Timer)


def test_a_timer_calls_back_with_its_arguments_unless_it_is_cancelled(loop: PluginLoop) -> None:
    called: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> None:
        called.append((args, kwargs))

    def start() -> None:
        _Timer(0.0, call, ("a", "b"), {"c": 1}).start()
        _Timer(0.0, call).start()
        _Timer(0.0, call).cancel()  # which was not started
        cancelled = _Timer(0.0, call, ("cancelled",))
        cancelled.start()
        cancelled.cancel()
        loop.call_later(0.0, loop.call_soon, loop.stop)

    loop.call_soon(start)
    loop.run_forever()
    assert called == [(("a", "b"), {"c": 1}), ((), {})]
