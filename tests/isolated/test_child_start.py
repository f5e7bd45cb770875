# An isolated plugin's process before there is a plugin: stops, signals and errors that come then.

from __future__ import annotations

import pickle
import signal
import socket

import pytest
from child_here import child_of, heard

from circusplug import HostConfig, HostOptions, PluginSpec
from circusplug._isolated import child_main, messages
from circusplug._wire.endpoints import Link


class Beginning:
    """What is done before there is a plugin, up to making it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signals: set[int] = set()
        self.host = HostOptions()
        parts = PluginSpec("one", "absent.Plugin"), HostConfig(), Link(), None
        self._plugin = pickle.dumps(parts)
        for name in ("log_to", "set_up", "redirect", "import_main"):
            monkeypatch.setattr(child_main, name, lambda *_: None)
        monkeypatch.setattr(child_main.edited_code, "turn_off", lambda: None)
        monkeypatch.setattr(child_main._Child, "_outlive_host", lambda _: None)
        monkeypatch.setattr(child_main, "take_signal", lambda number, _: self.signals.add(number))
        monkeypatch.setattr(child_main, "ThreadRunner", lambda *_: pytest.fail("it is made"))
        monkeypatch.setattr(messages, "receive_launch", lambda _: self._launch())

    def _launch(self) -> messages.Launch:
        return messages.Launch(
            self.host, 1.0, [], [], None, {}, log_level=0, main={}, plugin=self._plugin
        )


@pytest.fixture
def beginning(monkeypatch: pytest.MonkeyPatch) -> Beginning:
    return Beginning(monkeypatch)


def test_a_plugin_whose_stop_comes_before_it_is_there_is_not_made(beginning: Beginning) -> None:
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        far.sendall(messages.encode(messages.Stop(1.0)))
        assert child.live([0, 0, 0, 0]) == 0
        assert heard(far) == [messages.Ended(None, permanent=False, retry=False)]


def test_a_stop_signal_that_nobody_can_catch_is_left_alone(beginning: Beginning) -> None:
    beginning.host = HostOptions(stop_signal=signal.SIGKILL)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        child._stop_within(1.0)
        assert child.live([0, 0, 0, 0]) == 0
    assert beginning.signals == {signal.SIGTERM}


def test_an_import_that_meets_the_end_of_a_file_is_told_as_any_other_error(
    beginning: Beginning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise EOFError("marshal data too short")

    monkeypatch.setattr(child_main, "import_main", fail)
    near, far = socket.socketpair()
    with near, far, child_of(near) as child:
        assert child.live([0, 0, 0, 0]) == 1
        (end,) = heard(far)
    assert end.error == (
        "its process cannot load the plugin's class or options: EOFError: marshal data too short"
    )


def test_a_process_whose_host_has_gone_before_it_said_anything_ends(
    beginning: Beginning, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise EOFError("the host is gone")

    monkeypatch.setattr(messages, "receive_launch", fail)
    near, far = socket.socketpair()
    with near, child_of(near) as child:
        far.close()
        assert child.live([0, 0, 0, 0]) == 1
