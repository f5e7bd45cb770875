# Runs one plugin under the real host against a FakeCircusd, for a test.
#
# Who owns what: the plugin is its own thread's; the test's thread starts and stops the host.
# `_errors` is appended to on the plugin's thread and, by handle_stop, on the test's.

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

from circusplug._config.specs import HostConfig, PluginSpec
from circusplug._errors import HostError, PluginStateError
from circusplug._host.arbiter import Arbiter
from circusplug._plugin.base import subscriptions
from circusplug._plugin.status import Counters, PluginStatus
from circusplug._plugin.worker import Worker
from circusplug._runners.runner import Hooks

from ._circus_clock import circus_lives_by
from ._fake import FakeCircusd
from ._virtual_clock import VirtualClock
from ._virtual_worker import VirtualWorker

#: The states of a plugin in which nothing becomes of it by itself.
FINAL = frozenset(("stopped", "failed", "inactive", "abandoned"))


def has_settled(status: PluginStatus) -> bool:
    """Whether a plugin that was started runs, or will not."""
    return status.state in FINAL or (status.state == "running" and status.connected)


class RunningPlugin:
    """A plugin that runs under a host of its own; what `run_plugin` gives.

    Attributes:
        circusd: The circusd that it is connected to.
        arbiter: The host that runs it.
        name: Its name in the host.
    """

    def __init__(
        self,
        circusd: FakeCircusd,
        spec: PluginSpec,
        raise_errors: bool,
        clock: VirtualClock | None = None,
    ) -> None:
        self._clock = clock
        self.circusd = circusd
        self.name = spec.name
        self._raise_errors = raise_errors
        self._errors: list[BaseException] = []
        self._last: Any = None
        self.arbiter = Arbiter.from_config(
            HostConfig(
                (spec,),
                circusd.endpoint,
                circusd.pubsub_endpoint,
                check_delay=circusd._core.check_delay,
            ),
            hooks=Hooks(
                on_constructed=lambda _, plugin: setattr(self, "_last", plugin),
                on_exception=lambda _, error: self._note(error),
                make_worker=functools.partial(VirtualWorker, clock, circusd._core.server)
                if clock
                else Worker,
            ),
        )

    @property
    def plugin(self) -> Any:
        """The plugin itself, an instance of the class given; None if it could not be made.

        It lives on its own thread: look at what it keeps after a `wait_handled`, or when it
        is stopped.
        """
        return self._last

    @property
    def status(self) -> PluginStatus:
        """What the host says of it: state, counters, last error and so on."""
        return self.arbiter.plugins[self.name]

    @property
    def counters(self) -> Counters:
        """What it has done so far."""
        return self.status.counters

    @property
    def errors(self) -> list[BaseException]:
        """What its constructor, handlers, timers and callbacks have raised, in order."""
        return [*self._errors]

    def publish(self, watcher: str, action: str, /, **payload: Any) -> None:
        """Publish an event, see `FakeCircusd.publish`.

        With a virtual clock this returns when the plugin has dealt with it, and raises what it
        raised, as `advance` does.
        """
        self.circusd.publish(watcher, action, **payload)
        if self._clock is not None:
            self._raise_first()

    # Virtual time, see `run_plugin`.

    @property
    def elapsed(self) -> float:
        """What the virtual clock says: seconds since the start; the plugin's `loop.time()`."""
        return self._virtual_clock.now

    def advance(self, seconds: float) -> None:
        """Let the virtual clock go on, and everything happen that is due until then, in order.

        That is what the plugin's timers, periodic callbacks, sleeps and deadlines of calls do, and
        what `at` was given. The clock stands while a reply, an event or the connection is on its
        way, and while a handler runs. ``advance(0)`` lets happen what is due now.

        Raises:
            AssertionError: The clock had to stand for 5 real seconds; it says what for.
            ValueError: The number is negative.
            PluginStateError: The clock is not virtual, or is being advanced.
            BaseException: What the plugin raised meanwhile or before, as `wait` does, and what
                was raised by something that `at` was given.
        """
        self._virtual_clock.advance(seconds)
        self._raise_first()

    def at(self, seconds: float, action: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Have something done at a moment of virtual time, by the `advance` that comes to it.

        It is called on the thread of the test, after what the plugin itself does at that moment.

        Args:
            seconds: The moment, as `elapsed` tells it.
            action: What to call, with the arguments that follow.

        Raises:
            ValueError: That moment has passed.
            PluginStateError: The clock is not virtual.
        """
        self._virtual_clock.at(seconds, functools.partial(action, *args, **kwargs))

    @property
    def _virtual_clock(self) -> VirtualClock:
        if self._clock is None:
            raise PluginStateError(
                f'{self.name} runs in real time; use run_plugin(clock="virtual")'
            )
        return self._clock

    def wait(
        self, predicate: Callable[[PluginStatus], object], timeout: float = 5.0
    ) -> PluginStatus:
        """Wait until *predicate* holds for `status`, and return that.

        Raises:
            AssertionError: It took longer than *timeout* seconds.
            BaseException: What the plugin raised meanwhile or before, unless it was run with
                ``raise_errors=False``.
        """
        try:
            statuses = self.arbiter.wait(
                lambda statuses: bool(predicate(statuses[self.name]) or self._failed), timeout
            )
        except TimeoutError:
            status = self.status
            raise AssertionError(f"waited {timeout:g} s in vain, {self.name}: {status}") from None
        self._raise_first()
        return statuses[self.name]

    def wait_received(self, count: int, timeout: float = 5.0) -> None:
        """Wait until it has received *count* events since its start; raises as `wait`."""
        self.wait(lambda status: status.counters.received >= count, timeout)

    def wait_handled(self, count: int, timeout: float = 5.0) -> None:
        """Wait until its `handle_recv` has returned *count* times; raises as `wait`."""
        self.wait(lambda status: status.counters.handled >= count, timeout)

    def stop(self) -> None:
        """Stop it before the ``with`` block ends, to look at what it left; may be repeated.

        `handle_stop` runs on the calling thread. What it raises is raised when the block ends.
        When this returns, its subscriptions have left the circusd.
        """
        if self._clock is not None and self.plugin is not None:
            self.plugin._circusplug_worker.loop.release()
        left = -1
        if self.plugin is not None and self.status.connected:
            left = self.circusd.subscribers - _topics_of(self.plugin)
        self.arbiter.stop()
        if left >= 0 and self.status.state != "abandoned":
            with contextlib.suppress(AssertionError):  # it was not subscribed after all
                self.circusd.wait_unsubscribed(left)

    def _note(self, error: BaseException) -> None:
        self._errors.append(error)
        self.circusd._core.on_error(error)

    @property
    def _failed(self) -> bool:
        return self._raise_errors and bool(self._errors)

    def _raise_first(self) -> None:
        if self._failed:
            raise self._errors[0]

    def _wait_running(self, timeout: float) -> None:
        status = self.wait(
            has_settled,
            timeout,
        )
        if status.state in FINAL and self._raise_errors:
            raise HostError(f"{self.name} does not run but is {status.state}: {status.last_error}")


@contextlib.contextmanager
def run_plugin(
    plugin_class: type,
    circusd: FakeCircusd | None = None,
    /,
    *,
    raise_errors: bool = True,
    start_timeout: float = 5.0,
    clock: Literal["real", "virtual"] = "real",
    **config: Any,
) -> Iterator[RunningPlugin]:
    """Run a plugin under the real host, on a thread of its own, for a ``with`` block.

    The block begins when the plugin has been initialised and its subscription has arrived:
    no event published in it is lost. When the block ends, the plugin is stopped.

    Args:
        plugin_class: The plugin's class.
        circusd: The running `FakeCircusd` to connect to; by default one is made for the block.
        raise_errors: Whether the first exception of the plugin, of its constructor and
            handlers, of a timer or callback, is raised: by the waits, or when the block ends.
        start_timeout: How long the plugin may take to start, in seconds.
        clock: ``"virtual"``: time stands, until the test has it go on with `RunningPlugin.advance`.
            All of the plugin's loop lives by it, and so do `CircusPlugin.now`, the times that
            *circusd* tells, and its late replies. While the plugin starts, the clock goes on to
            whatever that waits for. What the host does, such as restarting it, takes real time.
        config: The plugin's options. ``name`` is its name as well; host options, such as
            ``host.on_error``, can be given with ``**{"host.on_error": "stop"}``. Unless said
            otherwise with ``host.restart``, a plugin that fails is not restarted.

    Raises:
        SpecError: An option is not valid.
        HostError: The plugin does not start or does not end, or is to be isolated, or another
            one lives by a virtual clock with this *circusd*.
        ValueError: There is no such *clock*.
        AssertionError: The plugin takes too long to start.
    """
    if clock not in ("real", "virtual"):
        raise ValueError(f"clock={clock!r}: it can be 'real' or 'virtual'")
    with contextlib.ExitStack() as stack:
        if circusd is None:
            circusd = stack.enter_context(FakeCircusd())
        spec = PluginSpec.from_options({"use": plugin_class, "host.restart": "never", **config})
        if spec.isolate:
            raise HostError(f"{spec.name}: a test runs a plugin on a thread; leave out 'isolate'")
        virtual = None if clock == "real" else VirtualClock(circusd._core.epoch)
        if virtual is not None:
            stack.enter_context(circus_lives_by(virtual, plugin_class))
        yield stack.enter_context(run_spec(spec, circusd, raise_errors, start_timeout, virtual))


@contextlib.contextmanager
def run_spec(
    spec: PluginSpec,
    circusd: FakeCircusd,
    raise_errors: bool,
    start_timeout: float,
    clock: VirtualClock | None,
) -> Iterator[RunningPlugin]:
    """Run what a specification says; see `run_plugin`."""
    with contextlib.ExitStack() as stack:
        if clock is not None:
            stack.enter_context(_lives_by(circusd, clock))
        running = RunningPlugin(circusd, spec, raise_errors, clock)
        subscriptions = circusd.subscribers
        stack.push(lambda _type, error, _trace: _finish(running, error))
        running.arbiter.__enter__()
        running._wait_running(start_timeout)
        if running.status.state == "running":
            circusd.wait_subscribed(subscriptions + _topics_of(running.plugin), start_timeout)
        if clock is not None:
            clock.settle()
        yield running


@contextlib.contextmanager
def _lives_by(circusd: FakeCircusd, clock: VirtualClock) -> Iterator[None]:
    """Meanwhile, let circusd live by the clock."""
    core = circusd._core
    if core.clock is not None:
        raise HostError("a FakeCircusd has one plugin with a virtual clock; give this another one")
    core.use_clock(clock)
    try:
        yield
    finally:
        core.use_clock(None)


def _finish(running: RunningPlugin, error: BaseException | None) -> None:
    """Stop the plugin and raise what it raised, unless the test is being ended from outside."""
    running.stop()
    if error is None or (isinstance(error, Exception) and error not in running.errors):
        running._raise_first()
        if running._raise_errors and running.status.state == "abandoned":
            raise HostError(f"{running.name} does not end: it is still busy")


def _topics_of(plugin: Any) -> int:
    """How many subscriptions a plugin has; see `CircusPlugin.topics`."""
    return len({*subscriptions(plugin.topics)})
