# Reloads of one host come one after the other, whoever asks for them.

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from circusplug import HostError
from circusplug._host.reloads import Reloads


class Host:
    """A host whose reload waits until another one has begun, or could have."""

    client = None
    has_circusd = False

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.under_way = self.most = self.done = 0

    def reload(self) -> list[str]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        self.under_way -= 1
        self.done += 1
        return []


def test_a_reload_waits_for_the_one_before() -> None:
    host = Host()
    reloads = Reloads(host)
    threads = [threading.Thread(target=reloads.run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert host.begun.acquire(timeout=PATIENCE)
        assert reloads._reloading.locked()
        host.go_on.release()
    for thread in threads:
        thread.join(PATIENCE)
    assert (host.most, host.done) == (1, 3)


class Idle:
    """A host whose reload does nothing, and what was asked of it."""

    def __init__(self, has_circusd: bool = False, done: tuple[str, ...] = ()) -> None:
        self.has_circusd = has_circusd
        self.asked: list[str] = []
        self.client = SimpleNamespace(call=self.asked.append)
        self._done = [*done]

    def reload(self) -> list[str]:
        self.asked.append("the file")
        return self._done


def test_what_a_reload_has_done_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Reloads(Idle(done=("added a", "removed b")), lambda: ["circusd reads it"]).run()
        Reloads(Idle()).run()
    assert caplog.messages == [
        "reloaded: added a; removed b; circusd reads it",
        "reloaded: nothing has changed",
    ]


def test_a_host_with_a_circusd_has_its_watchers_reloaded(caplog: pytest.LogCaptureFixture) -> None:
    host = Idle(has_circusd=True)
    with caplog.at_level(logging.INFO):
        Reloads(host, lambda: pytest.fail("that is for files")).run()
    assert host.asked == ["reload"]
    assert caplog.messages == ["the watchers are being reloaded"]


def test_a_reload_for_which_there_is_no_thread_is_told_of_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    Reloads(Idle()).begin()
    assert caplog.messages == ["not reloaded, all stays as it was: can't start new thread"]


def test_a_reload_that_fails_lets_the_next_one_be_made() -> None:
    host = Idle()
    results = iter([HostError("first\nsecond"), None])

    def after() -> list[str]:
        if (error := next(results)) is not None:
            raise error
        return []

    reloads = Reloads(host, after)
    with pytest.raises(HostError):
        reloads.run()
    reloads.run()
    assert host.asked == ["the file"] * 2
