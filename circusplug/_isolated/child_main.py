# What runs in an isolated plugin's process: the same worker on a thread of its own, and this,
# on the main thread, which talks to the host and runs `handle_stop`.
#
# Messages, one JSON object a line (never pickles: the host does not trust a plugin's process):
#   to the child   {"do": "stop", "grace": s, "limit": s}, or {"do": "counters"}
#   to the host    {"is": "begun"|"waiting"|"running"|"too many errors"|"stalled"|"counters"|
#                  "ended", …}
#
# Owner: the main thread reads the control socket and writes to it; nobody else does, but one
# thread waits for its end.

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .._config.host_options import HostOptions
from .._errors import describe
from .._plugin.mailbox import Mailbox
from .._runners.runner import Kind, Notice, Surroundings
from .._runners.stall_watch import StallWatch
from .._runners.thread_runner import ThreadRunner
from .._signals import ignore, take_signal
from .._status import Counters
from .forkserver import leave_family
from .line_buffer import LineBuffer
from .messages import make_report, shorten
from .process_setup import let_go_of_host, log_to, redirect, settle_in

#: How long a child may take beyond the time it was given to stop, in seconds.
_LAST_WAIT = 1.5
#: A stack is cut to this many characters.
_STACK_LIMIT = 20_000


@dataclass(frozen=True)
class Orders:
    """What a child is told when it starts; travels over a pipe, never on a command line.

    Attributes:
        host: What its process shall be like.
        stop_timeout: How long its stop may take, in seconds, if the host does not say.
        log_level: The lowest level that it logs.
        plugin: Its `PluginSpec`, `HostConfig` and `Link`, pickled, because to unpickle them
            imports the plugin's module, which comes after the process is as it shall be.
    """

    host: HostOptions
    stop_timeout: float
    plugin: bytes
    log_level: int


def main(orders: Orders, control: socket.socket, pipes: list[Any]) -> None:
    """Live one isolated plugin's life; the target of its process.

    Args:
        orders: What to run.
        control: The line to the host.
        pipes: Where log records (0), standard output (1) and standard error (2) go.
    """
    os.setsid()
    leave_family()
    child = _Child(orders, control)
    # The host alone decides what these mean. Handlers, since a plugin's programs would inherit
    # that they are ignored.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        take_signal(ignored, ignore)
    for number in {signal.SIGTERM, orders.host.stop_signal} - {signal.SIGKILL, signal.SIGSTOP}:
        take_signal(number, child.on_signal)
    status = child.live(pipes)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if child.host_is_gone or child.has_lost_host(0):
        os.killpg(0, signal.SIGKILL)  # what the plugin has started, which the host would kill
    # Not sys.exit: threads of the plugin's own must not keep its process.
    os._exit(status)


class _Child:
    host_is_gone = False

    def __init__(self, orders: Orders, control: socket.socket) -> None:
        self._orders = orders
        self._control = control
        control.setblocking(False)
        self._mailbox: Mailbox[Notice | str] = Mailbox()
        self._mailbox.also_watch(control.fileno())
        signal.set_wakeup_fd(self._mailbox.wakeup_fd, warn_on_full_buffer=False)
        self._lines = LineBuffer()
        self._watch = StallWatch(lambda: self._mailbox.put("watch"))
        self._is_set_up = False
        self._stop_grace: float | None = None
        self._stop_limit = orders.host.graceful_timeout + orders.stop_timeout
        self._ended = False
        self._error: str | None = None
        self._permanent = self._retry = False

    def live(self, pipes: list[Any]) -> int:
        """Get ready, and run the plugin until it is stopped or over; returns the exit status."""
        threading.Thread(target=self._outlive_host, name="circusplug-host", daemon=True).start()
        doing = "be set up"
        try:
            redirect(self._orders.host, pipes)
            log_to(pipes[0].fileno(), self._orders.log_level)
            settle_in(self._orders.host)
            doing = "load the plugin's class or options"
            spec, config, link = pickle.loads(self._orders.plugin)
            self._is_set_up = True
            around = Surroundings(config, link, self._mailbox.put, activity=self._watch.activity)
            self._runner = ThreadRunner(spec, around, Counters())
            doing = "run it"
            self._runner.start()
        except Exception as error:  # noqa: BLE001 - told to the host, which logs it
            self._say("ended", error=f"its process cannot {doing}: {describe(error)}")
            return 1
        self._run()
        self._say("counters", **make_report(self._runner))
        self._say("ended", error=self._error, permanent=self._permanent, retry=self._retry)
        return 1 if self._error else 0

    def has_lost_host(self, timeout: float | None) -> bool:
        """Wait for the host's end, for ever or for `timeout` seconds; whether it came."""
        poll = select.poll()
        poll.register(self._control.fileno(), 0)  # the end of a line is told in any case
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _outlive_host(self) -> None:
        """Wait for the host's end, on a thread, as the main one may be busy."""
        self.has_lost_host(None)
        if not self._is_set_up:
            os.killpg(0, signal.SIGKILL)  # it has nothing to clean up yet
        self._let_go()

    def _let_go(self) -> None:
        """Let nothing that is printed from now on be an error: the host is gone."""
        self.host_is_gone = True
        let_go_of_host(self._orders.host)

    def _run(self) -> None:
        while self._stop_grace is None and not self._ended:
            due = self._watch.next_look
            self._take(self._mailbox.get(None if due is None else max(0.0, due - time.monotonic())))
            for _, seconds in self._watch.look([self._runner]):
                stack = shorten(self._runner.stack(), _STACK_LIMIT)
                self._say("stalled", seconds=seconds, error=stack, **make_report(self._runner))
        if not self._ended:
            self._stop(self._stop_grace or 0.0)

    def _take(self, item: Notice | str | None) -> None:
        if item == "watch":
            self._watch.begin([self._runner])
        elif item == "stop":
            self._stop_grace = self._orders.host.graceful_timeout
        elif isinstance(item, Notice):
            self._notice(item)
        else:
            self._read_control()

    def _notice(self, notice: Notice) -> None:
        if notice.kind is Kind.ENDED:
            self._ended = True
            self._error = notice.error
            self._permanent = notice.permanent
            self._retry = notice.retry
            self._runner.run_handle_stop()
        elif notice.kind is Kind.STOP_ASKED:
            self._stop_grace = self._orders.host.graceful_timeout
        elif notice.kind is not Kind.PARKED:
            self._say(notice.kind.value, error=notice.error, **make_report(self._runner))

    def _stop(self, grace: float) -> None:
        self._kill_self_in(self._stop_limit + _LAST_WAIT)
        now = time.monotonic()
        self._runner.begin_stop(now + grace)
        self._runner.finish_stop(now + self._stop_limit)
        self._error = self._runner.failure

    def _kill_self_in(self, seconds: float) -> None:
        """End by force if nothing else does: the host may be gone, or not know of this stop."""
        timer = threading.Timer(seconds, os.killpg, (0, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def _read_control(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for line in self._lines.feed(data):
            self._order(json.loads(line))
        if not data and self._stop_grace is None:
            self._let_go()  # here, too, so that handle_stop finds it done
            self._stop_grace = self._stop_limit = self._orders.host.graceful_timeout

    def _order(self, order: dict[str, Any]) -> None:
        action = order.get("do")
        if action == "stop":
            self._stop_grace = float(order["grace"])
            self._stop_limit = float(order["limit"])
        elif action == "counters":
            self._say("counters", **make_report(self._runner))

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop, unless that is what it does already: a signal may come from anybody."""
        self._mailbox.put("stop")

    def _say(self, what: str, error: str | None = None, **more: Any) -> None:
        """Tell the host something; a host that is gone, or does not read, does not matter."""
        said = {"is": what, "error": shorten(error, _STACK_LIMIT), **more}
        with contextlib.suppress(OSError):
            self._control.settimeout(1.0)
            self._control.sendall(json.dumps(said).encode() + b"\n")
            self._control.setblocking(False)
