# Circus's own function under its own name, for programs that were written for Circus, and what
# it returns.
#
# Owner: as in arbiter.py.

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import zmq

from .._config.specs import PluginLike
from .._errors import SpecError
from .._logs import logger
from .._wire.commands import DEFAULT_ENDPOINT, DEFAULT_PUBSUB_ENDPOINT
from .arbiter import Arbiter

#: What goes to the `Arbiter`, of all that `get_arbiter` takes besides Circus's arguments.
_OF_ARBITER = ("ssh_server", "stop_timeout", "exit_when_done")


def get_arbiter(
    watchers: Iterable[Mapping[str, Any]],
    controller: str | None = None,
    pubsub_endpoint: str | None = None,
    statsd: bool = False,
    stats_endpoint: str | None = None,
    statsd_close_outputs: bool = False,
    multicast_endpoint: str | None = None,
    env: Mapping[str, str] | None = None,
    name: str | None = None,
    context: zmq.Context[Any] | None = None,
    background: bool = False,
    stream_backend: str = "thread",
    httpd: bool = False,
    plugins: Iterable[PluginLike] | None = None,
    debug: bool = False,
    proc_name: str = "circusd",
    loop: None = None,
    check_delay: float = 1.0,
    **options: Any,
) -> Arbiter:
    """Make an arbiter that starts a circusd, with the arguments of Circus's function.

    circusd is a process of its own and the plugins are hosted here, so hooks, streams and sockets
    that are objects of this process cannot be used; give dotted names, and mappings.

    Args:
        watchers: See `Arbiter`; a watcher without a name is named after its command.
        controller: Where circusd takes commands; by default Circus's own, port 5555.
        pubsub_endpoint: Where circusd publishes events; by default Circus's own, port 5556.
        statsd: Whether to run circusd-stats, at `stats_endpoint`.
        stats_endpoint: See `statsd`.
        statsd_close_outputs: Whether what circusd-stats prints is thrown away.
        multicast_endpoint: Where circusd can be discovered; by default Circus's own.
        env: Does nothing, as in Circus; each watcher may have its own.
        name: Does nothing, as in Circus; each watcher may have its own.
        context: The plugins' ZMQ context, see `Arbiter`.
        background: Whether `start` returns when circusd and the plugins are ready.
        stream_backend: What circusd reads its watchers' output with.
        httpd: Whether to run circushttpd, which is of another package.
        plugins: See `Arbiter`.
        debug: Whether circusd shows what circusd-stats prints.
        proc_name: How circusd's process is named.
        loop: None, as circusd has one of its own.
        check_delay: circusd's check period in seconds.
        options: What Circus's `Arbiter` takes besides, and `stop_timeout` and `exit_when_done`
            of ours.

    Raises:
        SpecError: A watcher, a plugin or an option is not valid.
    """
    if loop is not None:
        raise SpecError("'loop' cannot be used: circusd is a process of its own; leave it out")
    for key, value in (("env", env), ("name", name)):
        if value is not None:
            logger.warning("'%s' does nothing, as in Circus; give it to a watcher", key)
    of_arbiter = {key: options.pop(key) for key in _OF_ARBITER if key in options}
    circusd = {
        "statsd": statsd,
        "stats_endpoint": stats_endpoint,
        "statsd_close_outputs": statsd_close_outputs,
        "multicast_endpoint": multicast_endpoint,
        "stream_backend": stream_backend,
        "httpd": httpd,
        "debug": debug,
        "proc_name": proc_name,
        **options,
    }
    make = BackgroundArbiter if background else CircusArbiter
    return make(
        plugins or (),
        controller or DEFAULT_ENDPOINT,
        pubsub_endpoint or DEFAULT_PUBSUB_ENDPOINT,
        check_delay,
        context=context,
        watchers=watchers,
        circusd=circusd,
        **of_arbiter,
    )


class CircusArbiter(Arbiter):
    """An arbiter for programs that were written for Circus's: takes what that takes."""

    _strict = False


class BackgroundArbiter(CircusArbiter):
    """An arbiter whose `start` returns when circusd and the plugins are ready.

    As Circus's, it keeps the program from ending until it is stopped.
    """

    _keeper: threading.Thread | None = None

    def start(self) -> None:
        """Host in the background, until `stop` is called.

        Raises:
            HostError: It was started before, or its circusd did not start.
        """
        self.__enter__()
        self._keeper = threading.Thread(target=self._started.over.wait, name="circusplug-keeper")
        self._keeper.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has stopped, for `timeout` seconds at most."""
        if self._keeper is not None:
            self._keeper.join(timeout)

    def is_alive(self) -> bool:
        """Whether it was started and has not stopped."""
        return self._keeper is not None and self._keeper.is_alive()
