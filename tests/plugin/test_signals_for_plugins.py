# Signals that plugins want to hear of, and what those are told that try it in ways that do not work
# on a thread.

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from command import COMMAND, Running, environment, plugin, write_ini
from members import Journal, Member, state_is
from patience import PATIENCE

from circusplug import Arbiter
from circusplug._signals import relay
from circusplug.testing import FakeCircusd

PLUGIN = """\
import os, signal, threading
from tellers import Teller

class Listens(Teller):
    def handle_init(self):
        self.say("init")
        self.loop.add_signal_handler(signal.SIGUSR2, self.on_signal, "a")
        self.loop.add_signal_handler(signal.SIGWINCH, self.on_signal, "b")

    def handle_recv(self, data):
        for number in (signal.SIGUSR2, signal.SIGWINCH):
            os.kill(os.getpid(), number)

    def on_signal(self, which):
        self.say(f"signal {which} on {threading.current_thread().name}")

class Wrong(Teller):
    def handle_init(self):
        signal.signal(signal.SIGUSR2, lambda *_: None)

class Asks(Teller):
    def handle_init(self):
        self.loop.add_signal_handler(signal.SIGTERM, print)

class Old(Teller):
    def handle_init(self):
        from tornado.ioloop import PeriodicCallback
        PeriodicCallback(print, 100, self.loop).start()

if __name__ == "__main__":
    import sys
    Listens(*sys.argv[1:3], name="plugin:a").start()
"""


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_plugin_hears_of_signals_on_its_own_thread(by_hand: bool, tmp_path: Path) -> None:
    with FakeCircusd() as circusd:
        ends = circusd.endpoint, circusd.pubsub_endpoint
        write_ini(tmp_path, *ends, plugin("a", "listens.Listens"))
        (tmp_path / "listens.py").write_text(PLUGIN)
        program = [sys.executable, "listens.py", *ends] if by_hand else [*COMMAND, "run"]
        arguments = [] if by_hand else ["circus.ini"]
        env = environment(PYTHONWARNINGS="", PYTHONUNBUFFERED="1")
        with Running(tmp_path, *arguments, program=program, env=env) as command:
            command.wait_for("plugin:a: init")
            circusd.wait_subscribed(1, PATIENCE)
            circusd.publish("web", "spawn")
            command.wait_for_all("signal a on plugin:", "signal b on plugin:")
            command.signal(signal.SIGTERM)
            assert command.end() == 0


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        ("Wrong", "use self.loop.add_signal_handler(number, function)"),
        ("Asks", "SIGTERM is the host's; what a plugin does at a stop belongs into handle_stop"),
        ("Old", "the third argument of Tornado's PeriodicCallback was the loop up to Tornado 4"),
    ],
)
def test_one_that_cannot_work_on_a_thread_is_told_what_to_do(
    use: str, hint: str, tmp_path: Path
) -> None:
    with FakeCircusd() as circusd:
        wrong = plugin("a", f"listens.{use}", host_max_restarts=0)
        path = write_ini(tmp_path, circusd.endpoint, circusd.pubsub_endpoint, wrong)
        (tmp_path / "listens.py").write_text(PLUGIN)
        with Running(tmp_path, "run", path) as command:
            said = command.wait_for("a has failed for good")
    assert hint in said


def test_a_signal_means_afterwards_what_it_did_before() -> None:
    before = signal.signal(signal.SIGUSR2, ours := lambda *_: None)
    try:
        told, whose = list[str](), object()
        with relay.served(relay.install):
            relay.add(signal.SIGUSR2, whose, lambda: told.append("it"))
            signal.raise_signal(signal.SIGUSR2)
            relay.forget(whose)
        assert told == ["it"]
        assert signal.getsignal(signal.SIGUSR2) is ours
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_in_the_background_nobody_hands_signals_on(
    fake_circusd: FakeCircusd, journal: Journal
) -> None:
    class Asks(Member):
        def handle_init(self) -> None:
            self.loop.add_signal_handler(signal.SIGUSR2, os.getpid)

    asks = {"use": Asks, "name": "a", "journal": journal, "host.max_restarts": 0}
    ends = fake_circusd.endpoint, fake_circusd.pubsub_endpoint
    before = signal.getsignal(signal.SIGUSR2)
    with Arbiter([asks], *ends) as arbiter:
        status = arbiter.wait(state_is("a", "failed"), PATIENCE)["a"]
    assert "no host runs on the main thread" in (status.last_error or "")
    assert signal.getsignal(signal.SIGUSR2) is before
