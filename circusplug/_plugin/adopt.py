# Plugins made for Circus's own base class, run unmodified: a class is made in which our base
# stands just above Circus's, so that each super() call of theirs reaches our worker.
#
# (Adopted, TheirPlugin, ..., AdoptedBase, _Adopted, our CircusPlugin, circus's CircusPlugin)
#
# Some plugins name the base instead: ``CircusPlugin.__init__(self, ...)``. Circus's own code
# then runs on an instance of ours. What it assigns and calls is on the instance, and that is
# where it is led back: `loop`, `substream` and the loop's `make_current` and `start`.
#
# Owner: an adopted plugin belongs to its thread, as any other. `_lock` guards the making of
# classes, since several threads may load the same one.

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import types
import uuid
from collections.abc import Callable
from typing import Any

from tornado.log import app_log
from tornado.platform.asyncio import BaseAsyncIOLoop

from .._errors import PluginStateError
from .._loop.plugin_loop import PluginLoop
from .base import CircusPlugin
from .owner import Phase
from .receiver import Frames

_lock = threading.RLock()


def adopt(cls: type) -> type[Any]:
    """Make a class for our host of one that derives from Circus's own base class.

    Args:
        cls: A subclass of ``circus.plugins.CircusPlugin``.

    Returns:
        A subclass of it that bears the same name; the same one for the same class.
    """
    with _lock:
        # Its subclasses know it already, and forget it when nobody uses it any more.
        subclasses: list[type[Any]] = cls.__subclasses__()
        for known in subclasses:
            if known.__dict__.get("_adopts") is cls:
                return known
        circus_base = next(base for base in cls.__mro__ if _is_circus_base(base))
        names = {
            "_adopts": cls,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
        }
        bases = (cls, _base_above(circus_base))
        return types.new_class(cls.__name__, bases, exec_body=lambda body: body.update(names))


@functools.lru_cache
def _base_above(circus_base: type) -> type[Any]:
    app_log.addFilter(_ReportFilter())
    return type("AdoptedBase", (_Adopted, circus_base), {"_circus_base": circus_base})


def _is_circus_base(cls: type) -> bool:
    return cls.__module__ == "circus.plugins" and cls.__name__ == "CircusPlugin"


class PluginIOLoop(BaseAsyncIOLoop):
    """The Tornado loop of an adopted plugin: stands on the plugin's own loop.

    Its end is the worker's business: to close or stop it while it runs makes the plugin stop.
    """

    def initialize(  # type: ignore[override]
        self, asyncio_loop: PluginLoop, plugin: _Adopted, **kwargs: Any
    ) -> None:
        self._plugin = plugin
        self._loop = asyncio_loop
        super().initialize(asyncio_loop, **kwargs)

    def _make_current(self) -> None:
        asyncio.set_event_loop(self.asyncio_loop)

    def make_current(self) -> None:
        """Make it the calling thread's loop; Circus's own `start` begins with this."""
        self._make_current()
        self._plugin._begin_circus_start()

    def start(self) -> None:
        """Run until stopped; called by Circus's own `start`, live the plugin's whole life."""
        if not self._plugin._go_on_from_circus_start():
            super().start()

    def stop(self) -> None:
        """Stop the loop, from any thread."""
        self._loop.stop_threadsafe()

    def close(self, all_fds: bool = False) -> None:
        """Close the loop; one that is running is stopped, its owner closes it then."""
        if self._loop.is_running():
            self._loop.stop_threadsafe()
        elif not self._loop.is_closed():
            super().close(all_fds)

    def is_closed(self) -> bool:
        """Whether it is closed, by whomever."""
        return self._loop.is_closed()

    def handle_callback_exception(self, callback: Callable[..., object]) -> None:
        """Report the exception being handled as one of `callback`.

        Tornado 6 has no such method any more, but `circus.util.AsyncPeriodicCallback` calls it.
        """
        self._loop.handle_callback_exception(callback)


class _ReportFilter(logging.Filter):
    """Hands exceptions that Tornado would only log to the plugin's loop, which also counts them."""

    def filter(self, record: logging.LogRecord) -> bool:
        loop = asyncio._get_running_loop()
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not isinstance(loop, PluginLoop):
            return True
        loop.call_exception_handler({"message": record.getMessage(), "exception": error})
        return False


class _Unused:
    """Stands for the sockets that Circus's own code would use and close."""

    def close(self, *args: Any, **kwargs: Any) -> None:
        pass

    destroy = on_recv = close


_UNUSED = _Unused()


class _Adopted(CircusPlugin):
    """Our base as an adopted plugin sees it: with the habits of Circus's."""

    raise_call_errors = False
    #: What Circus's own code reads back; see `substream`.
    client: Any = _UNUSED
    sub_socket: Any = _UNUSED
    context: Any = _UNUSED
    _id = uuid.uuid4().hex.encode()

    def handle_recv(self, data: Frames) -> Any:
        """Leave the event out: for plugins that have only timers."""

    def start(self) -> None:
        self._end_circus_start()
        super().start()

    def cast(self, command: str, **props: Any) -> None:
        try:
            super().cast(command, **props)
        except PluginStateError as error:
            worker = self._circusplug_worker
            if worker.phase is not Phase.ENDED:
                raise
            # From a thread of its own, as Flapping's timers: Circus would end it with the process.
            worker.logger.info("not sent, it has stopped: %s", error)

    def _subscription(self) -> tuple[list[bytes], bool]:
        # Attributes of these names are the plugin's own; Circus knows nothing of them.
        return [b"watcher."], False

    # Circus's own __init__ ends with ``self.loop = IOLoop()``. If ours has not run by then,
    # the plugin has called that one by name, and ours runs now.

    @property
    def loop(self) -> Any:
        """The plugin's loop: Tornado's, on top of ours."""
        return self.__dict__["loop"]

    @loop.setter
    def loop(self, loop: Any) -> None:
        if isinstance(loop, PluginLoop):
            self.__dict__["loop"] = PluginIOLoop(asyncio_loop=loop, plugin=self)
        elif "loop" not in self.__dict__:
            loop.close()
            CircusPlugin.__init__(
                self,
                self.endpoint,
                self.pubsub_endpoint,
                self.check_delay,
                self.ssh_server,
                **self.config,
            )
        else:
            # Only one loop will be run, and callbacks belong on it.
            self.loop._make_current()

    # Circus's own `initialize` makes sockets and ends with assigning this stream and hooking
    # `handle_recv` to it. The worker's sockets are there already.

    @property
    def substream(self) -> Any:
        """Nothing that is used."""
        return _UNUSED

    @substream.setter
    def substream(self, stream: Any) -> None:
        stream.close()
        self.client.close(0)
        self.context.term()
        self.client = self.sub_socket = self.context = _UNUSED

    # Circus's own `start` makes the loop current, calls the two hooks and starts the loop. The
    # hooks are covered up till then: the worker calls them, once it is connected.

    def _begin_circus_start(self) -> None:
        if self._circusplug_worker.phase is Phase.NEW:
            self.__dict__.update(handle_init=_nothing, initialize=_nothing)

    def _go_on_from_circus_start(self) -> bool:
        """Run the plugin if it is Circus's own `start` that starts the loop."""
        covered = self._end_circus_start()
        if not (covered and self.running):
            return False
        self.running = False
        CircusPlugin.start(self)
        return True

    def _end_circus_start(self) -> bool:
        """Uncover the hooks; False if they were not covered."""
        hooks = [self.__dict__.get(name) for name in ("handle_init", "initialize")]
        if hooks != [_nothing, _nothing]:
            return False
        del self.__dict__["handle_init"], self.__dict__["initialize"]
        return True


def _nothing() -> None:
    pass
