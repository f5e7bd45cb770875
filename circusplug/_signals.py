# Signal handlers that a forked process does not inherit, what a second Ctrl-C means, and signals
# that plugins want to hear of on their threads.
#
# Owner: the main thread, which is the only one that may set a signal handler. `relay` is for any
# thread; its `_lock` guards who wants what and what is installed.

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

#: Two SIGINTs closer together than this, in seconds, are one: `timeout -s INT` sends one
#: signal twice, to the process and to its group. On a busy machine they drift apart.
_SAME_SIGNAL = 0.2

Handler = Callable[[int, FrameType | None], object]

#: The signals whose handlers a forked process must not inherit.
_taken: set[int] = set()


def take_signal(number: int, handler: Handler) -> Any:
    """Handle a signal in this process, but in no process that is forked from it.

    A plugin's helper process would otherwise not end when it is told to, but tell us.

    Returns:
        The handler before, for `give_back_signal`.
    """
    _hook_forks()
    _taken.add(number)
    return signal.signal(number, handler)


def give_back_signal(number: int, before: Any) -> None:
    """Put back the handler that `take_signal` returned; None is one that is not Python's."""
    signal.signal(number, before if before is not None else signal.SIG_DFL)
    _taken.discard(number)


@contextlib.contextmanager
def handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Handle signals for a ``with`` block, as `take_signal` does."""
    before = {number: take_signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            give_back_signal(number, handler)


def is_free(number: int) -> bool:
    """Whether a signal does what it does when nobody has said anything."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


class SecondInterrupt:
    """To be called for each SIGINT: the second one ends the process at once."""

    def __init__(self) -> None:
        self._first = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._first and now - self._first > _SAME_SIGNAL:
            if select.select([], [2], [], 0)[1]:  # not where nobody reads
                os.write(2, b"interrupted twice: ending at once\n")
            os._exit(130)
        self._first = self._first or now


def ignore(number: int, frame: FrameType | None) -> None:
    """Let a signal pass. Unlike SIG_IGN, programs that are started do not inherit it."""


@functools.cache
def _hook_forks() -> None:
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for number in _taken:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    if _taken:
        signal.set_wakeup_fd(-1)
    _taken.clear()


#: What hosts use themselves; a plugin that wants to know of a stop has `handle_stop`.
_HOSTS = frozenset(
    (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM)
)


#: How long a plugin waits for the main thread to set a handler, in seconds; that may be busy with
#: another plugin's `handle_stop`.
_INSTALL_WAIT = 1.0


class Relay:
    """Hands signals on to plugins' loops."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._wanted: dict[int, dict[object, Callable[[], object]]] = {}
        self._take: Callable[[int], object] | None = None
        self._before: dict[int, Any] = {}

    @contextlib.contextmanager
    def served(self, take: Callable[[int], object]) -> Iterator[None]:
        """Let plugins ask for signals, for a ``with`` block of the main thread.

        Args:
            take: Has `install` called on the main thread with a number; from any thread.
        """
        self._take = take
        try:
            yield
        finally:
            self._take = None
            while self._before:
                give_back_signal(*self._before.popitem())

    def install(self, number: int) -> None:
        """Hand a signal on from now on; on the main thread."""
        if number not in self._before:
            before = take_signal(number, self._deliver)
            with self._lock:
                self._before[number] = before
                self._lock.notify_all()

    def add(self, number: int, whose: object, tell: Callable[[], object]) -> None:
        """Call `tell`, which must be fit for a signal handler, for each such signal.

        Args:
            number: The signal.
            whose: Who wants to be told; it takes the place of what the same one said before.
            tell: Called on the main thread.

        Raises:
            RuntimeError: It is a signal of the host's, or nobody here could hand it on.
        """
        name = signal.Signals(number).name
        if number in _HOSTS:
            raise RuntimeError(
                f"{name} is the host's; what a plugin does at a stop belongs into handle_stop"
            )
        take = self._take
        if take is None:
            raise RuntimeError(
                f"nobody hands {name} on here, as no host runs on the main thread; handle it "
                "there, and have the handler call loop.add_callback_from_signal"
            )
        with self._lock:
            self._wanted.setdefault(number, {})[whose] = tell
        take(number)
        with self._lock:  # a signal that comes at once shall find its handler
            self._lock.wait_for(lambda: number in self._before, _INSTALL_WAIT)

    def remove(self, number: int, whose: object) -> bool:
        """Tell one no more; False if it was not told anyway."""
        with self._lock:
            return self._wanted.get(number, {}).pop(whose, None) is not None

    def forget(self, whose: object) -> None:
        """Tell one of no signal any more."""
        with self._lock:
            for wanted in self._wanted.values():
                wanted.pop(whose, None)

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        for tell in list(self._wanted.get(number, {}).values()):
            tell()


relay = Relay()
