# A process that a plugin on a thread forks ends when the plugin's code in it does; the host and its
# plugins never notice.

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from members import Journal, MakeHost, Member, hosting, member
from patience import PATIENCE

from circusplug.testing import FakeCircusd


class Forks(Member):
    """Forks at an event, does in the child what it is told to, and notes how the child ended."""

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        if self.parse_event(data).action == self.config["at"]:
            self.fork()
        super().handle_recv(data)

    def handle_init(self) -> None:
        super().handle_init()
        if self.config["at"] == "init":
            self.fork()

    def handle_stop(self) -> None:
        if self.config["at"] == "stop":
            self.fork()
        super().handle_stop()

    def fork(self) -> None:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            self.config["child"]()
            self.is_child = True
            return
        _, status = os.waitpid(pid, 0)
        self.note(f"child ended with {os.waitstatus_to_exitcode(status)}")


def exit_with_3() -> None:
    sys.exit(3)


def fail() -> None:
    raise ValueError("in the child")


def go_on() -> None:
    """Return, as if nothing had happened."""


@pytest.mark.parametrize("at", ["spawn", "init", "stop"])
@pytest.mark.parametrize(("child", "status"), [(exit_with_3, 3), (fail, 1), (go_on, 0)])
def test_a_forked_process_ends_with_the_plugins_code(
    at: str,
    child: Callable[[], None],
    status: int,
    host: MakeHost,
    journal: Journal,
    fake_circusd: FakeCircusd,
) -> None:
    if at == "init" and child is go_on:
        pytest.skip("a child that returns from handle_init waits for events first")
    arbiter = host({**member("one", Forks), "at": at, "child": child}, member("other"))
    with hosting(arbiter):
        fake_circusd.wait_subscribed(2)
        fake_circusd.publish("web", "spawn")
        fake_circusd.publish("web", "reap")
        for name in ("one", "other"):
            journal.wait(name, "reap")
    journal.wait("one", f"child ended with {status}")
    assert journal.of("other") == ["init", "spawn", "reap", "stop"]
