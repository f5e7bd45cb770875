# The event loop of one plugin: asyncio's own, whose selector is one blocking zmq.Poller (see
# selector.py), so that ZMQ sockets, file descriptors, timers and coroutines all wait in the
# same poll.
#
# Owner: a loop and its selector belong to the plugin's thread. What another thread may call
# is `add_callback`, `call_soon_threadsafe` and `stop_threadsafe`; while the plugin is parked
# the loop does not run, and then `handle_stop`, on the main thread, may cancel and remove.

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import sys
import time
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import zmq

from .._signals import relay
from . import selector
from .forks import end_of_forked
from .selector import PollerSelector


class Cancellable(Protocol):
    """A callback to come."""

    def cancel(self) -> None: ...


class PluginLoop(asyncio.SelectorEventLoop):
    """The asyncio loop of a plugin's thread, which also answers to Tornado's IOLoop names."""

    NONE = 0
    READ = 0x001
    WRITE = 0x004
    ERROR = 0x008 | 0x010

    #: Set when the plugin is over and only what it has begun is finished.
    settling = False
    #: How many blocks of `outside` are under way.
    outside_now = 0
    #: Whether events come from a recording.
    replaying = False

    def __init__(self, selector: PollerSelector | None = None) -> None:
        self.selector = selector or PollerSelector()
        try:
            super().__init__(self.selector)
        except OSError:  # no descriptors left: there is nothing yet that `close` could close
            asyncio.BaseEventLoop.close(self)
            raise
        self._tasks: set[asyncio.Task[Any]] = set()
        self._handlers: dict[int, tuple[Any, Callable[..., object], int]] = {}

    def watch_socket(
        self,
        socket: zmq.Socket[Any],
        on_readable: Callable[[], object] | None,
        on_writable: Callable[[], object] | None = None,
    ) -> None:
        """Call back whenever a ZMQ socket can be read from, or written to; None: not at all."""
        mask = (selector.READ if on_readable else 0) | (selector.WRITE if on_writable else 0)
        data = tuple(
            events.Handle(callback, (), self, None) if callback else None
            for callback in (on_readable, on_writable)
        )
        known = self.selector.get_map().get(socket)
        if known is not None:
            for handle in known.data:
                if handle is not None:
                    handle.cancel()  # it may be ready, and its turn still to come
        if not mask:
            if known is not None:
                self.selector.unregister(socket)
        elif known is not None:
            self.selector.modify(socket, mask, data)
        else:
            self.selector.register(socket, mask, data)

    def call_directly(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call now, on this thread, as if from a callback of the loop that is about to run."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            with end_of_forked():
                return callback(*args)
        finally:
            events._set_running_loop(before)

    def run_forever(self) -> None:
        """Run until stopped; a process that is forked by a callback ends here."""
        with end_of_forked():
            super().run_forever()

    def add_signal_handler(  # type: ignore[override]  # *args of any types, as Tornado's names have
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call back on the loop's thread for a signal that the host does not use itself.

        Raises:
            RuntimeError: It is one of the host's, or no host on the main thread hands it on.
        """
        relay.add(int(sig), self, functools.partial(self.post, callback, *args))

    def remove_signal_handler(self, sig: int) -> bool:
        """Call back no more; False if there was nothing to take away."""
        return relay.remove(int(sig), self)

    def wall_time(self) -> float:
        """The time of day in seconds since the epoch; see `CircusPlugin.now`."""
        return time.time()

    def call_later_for_real(self, delay: float, callback: Callable[[], object]) -> Cancellable:
        """As `call_later`, by the real clock even in a test with a virtual one."""
        return self.call_later(delay, callback)

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Tell the loop that something real is awaited in a ``with`` block.

        A test's virtual clock stands meanwhile: for what a thread does, or an answer over a
        socket of the plugin's own. With the real clock it changes nothing.
        """
        self.outside_now += 1
        try:
            yield
        finally:
            self.outside_now -= 1

    def stop_threadsafe(self) -> None:
        """Stop the loop, from any thread; nothing happens if it is closed."""
        self.post(self.stop)

    def post(self, callback: Callable[..., object], *args: Any) -> bool:
        """Have the loop's thread call back soon; False if the loop is closed."""
        try:
            self.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return False
        return True

    def disown(self) -> None:
        """In a forked process: call nothing any more, and end at the end of the call in hand."""
        for handle in (*self._ready, *self._scheduled):  # type: ignore[attr-defined]
            handle.cancel()
        self.stop()  # before it polls again

    def finish(self, in_hand: asyncio.Task[Any] | None, grace: float) -> None:
        """Run until a task has ended, and cancel all others; then nothing runs any more.

        Args:
            in_hand: The task to wait for, however long it takes; None: none.
            grace: How long cancelled tasks may take to end, in seconds.
        """
        self.settling = True  # the loop runs on for a moment, but no period begins
        if in_hand is not None:
            self._complete(asyncio.wait([in_hand]))
        deadline = time.monotonic() + grace
        self._cancel_tasks(deadline)
        self._complete(self.shutdown_asyncgens())
        self._cancel_tasks(deadline)  # those that timers have made meanwhile

    def _cancel_tasks(self, deadline: float) -> None:
        """Cancel tasks until there is none, or time is over; once in any case."""
        while tasks := asyncio.all_tasks(self):
            left = deadline - time.monotonic()
            for task in tasks:
                task.cancel()
            self._complete(asyncio.wait(tasks, timeout=max(0.0, left)))
            if left <= 0:
                return

    def _complete(self, work: Coroutine[Any, Any, object]) -> None:
        """Run the loop until something is done, be it stopped by the plugin or not."""
        task = self.create_task(work)
        while not task.done() and not self.is_closed():
            with contextlib.suppress(RuntimeError):
                self.run_until_complete(task)

    def close(self, all_fds: bool = False) -> None:
        """Close the loop; one that is running is stopped, its owner closes it then."""
        if self.is_running():
            self.stop()
            return
        relay.forget(self)
        tornado_loop = getattr(sys.modules.get("tornado.ioloop"), "IOLoop", None)
        if tornado_loop is not None:
            # Tornado keeps the IOLoop it made for this one until told that it is over.
            tornado_loop._ioloop_for_asyncio.pop(self, None)
        super().close()

    # What follows are the names of Tornado's IOLoop that plugins use.

    def start(self) -> None:
        """Run until stopped; `run_forever` under its Tornado name."""
        self.run_forever()

    def make_current(self) -> None:
        """Make this the calling thread's loop; a plugin's own thread has it already."""
        asyncio.set_event_loop(self)

    def clear_current(self) -> None:
        """Undo `make_current`."""
        asyncio.set_event_loop(None)

    def add_handler(self, fd: Any, handler: Callable[..., object], events: int) -> None:
        """Call ``handler(fd, events)`` when a descriptor, file or ZMQ socket is ready.

        Args:
            fd: A descriptor, an object with ``fileno()``, or a ZMQ socket.
            handler: Takes what was given as `fd`, and READ or WRITE.
            events: READ, WRITE or both, added.
        """
        self._watch(fd, handler, events)

    def update_handler(self, fd: Any, events: int) -> None:
        """Change the events that a handler is called for."""
        _, handler, _ = self._handlers[_handler_key(fd)]
        self._watch(fd, handler, events)

    def remove_handler(self, fd: Any) -> None:
        """Forget a handler; nothing happens if there is none."""
        key = _handler_key(fd)
        if self._handlers.pop(key, None) is None:
            return
        if isinstance(fd, zmq.Socket):
            self.watch_socket(fd, None)
        else:
            self.remove_reader(key)
            self.remove_writer(key)

    def _watch(self, fd: Any, handler: Callable[..., object], events: int) -> None:
        reads = functools.partial(handler, fd, self.READ) if events & self.READ else None
        writes = functools.partial(handler, fd, self.WRITE) if events & self.WRITE else None
        self._handlers[_handler_key(fd)] = (fd, handler, events)
        if isinstance(fd, zmq.Socket):
            self.watch_socket(fd, reads, writes)
            return
        if reads:
            self.add_reader(fd, reads)
        else:
            self.remove_reader(fd)
        if writes:
            self.add_writer(fd, writes)
        else:
            self.remove_writer(fd)

    def add_callback(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call back on the loop's thread soon; safe from any thread, also when it is closed."""
        self.post(functools.partial(self._run_callback, callback, *args, **kwargs))

    def add_callback_from_signal(
        self, callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> None:
        """The same as `add_callback`; safe from a signal handler, too."""
        self.add_callback(callback, *args, **kwargs)

    spawn_callback = add_callback

    def add_timeout(
        self,
        deadline: float | datetime.timedelta,
        callback: Callable[..., object],
        *args: Any,
        **kwargs: Any,
    ) -> asyncio.TimerHandle:
        """Call back once at a time.

        Args:
            deadline: A `timedelta` from now, or a moment of either clock: `time.time()` (as
                Tornado counts) or this loop's `time()`; the nearer one is meant.
            callback: Called on the loop's thread, with the arguments that follow.

        Returns:
            What `remove_timeout` takes.
        """
        if isinstance(deadline, datetime.timedelta):
            delay = deadline.total_seconds()
        else:
            delay = min(deadline - time.time(), deadline - self.time(), key=abs)
        call = functools.partial(self._run_callback, callback, *args, **kwargs)
        return super().call_later(max(0.0, delay), call)

    def remove_timeout(self, timeout: asyncio.TimerHandle) -> None:
        """Cancel what `add_timeout` or `call_later` returned; also when it is over."""
        timeout.cancel()

    def call_later(  # type: ignore[override]  # Tornado's form takes keyword arguments
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Any = None,
        **kwargs: Any,
    ) -> asyncio.TimerHandle:
        """Call back once, `delay` seconds from now."""
        if kwargs:
            callback = functools.partial(callback, **kwargs)
        return super().call_later(delay, callback, *args, context=context)

    def add_future(
        self, future: asyncio.Future[Any], callback: Callable[[asyncio.Future[Any]], object]
    ) -> None:
        """Call back with a future when it is done."""
        future.add_done_callback(callback)

    def run_sync(self, func: Callable[[], Any], timeout: float | None = None) -> Any:
        """Run a function, or a coroutine function to its end; only while the loop stands still.

        Raises:
            TimeoutError: It took longer than `timeout` seconds.
        """

        async def run() -> Any:
            result = func()
            if hasattr(result, "__await__"):
                result = await asyncio.wait_for(result, timeout)
            return result

        before = events._get_running_loop()
        if before is self and not self.is_running():
            events._set_running_loop(None)
        try:
            return self.run_until_complete(run())
        finally:
            events._set_running_loop(before)

    def handle_callback_exception(self, callback: Callable[..., object]) -> None:
        """Report the exception being handled as one of `callback`."""
        self.call_exception_handler(
            {"message": f"Exception in callback {callback!r}", "exception": sys.exc_info()[1]}
        )

    def _run_callback(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        result = callback(*args, **kwargs)
        if asyncio.iscoroutine(result):
            # A task that fails reports to the exception handler when it is forgotten;
            # reporting at once is kinder to whoever looks for the cause.
            task = self.create_task(result)
            self._tasks.add(task)  # asyncio itself keeps no task alive
            task.add_done_callback(self._report_failed_task)

    def _report_failed_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.call_exception_handler(
                {"message": f"Exception in {task!r}", "exception": error, "task": task}
            )


def _handler_key(fd: Any) -> int:
    if isinstance(fd, int):
        return fd
    if isinstance(fd, zmq.Socket):
        return -1 - id(fd)
    return int(fd.fileno())
