# Makes the runners of a host, and holds what they share: the ZMQ context, the tunnel, the
# thread that reads what isolated plugins say.
#
# Owner: the supervising thread.

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import zmq

from .._config.specs import HostConfig, PluginSpec
from .._runners.runner import Runner, Surroundings
from .._runners.thread_runner import ThreadRunner
from .._status import Counters
from .._wire.endpoints import Link, connectable
from .resources import keep_context, make_context

if TYPE_CHECKING:
    from .._isolated.pipes import Children


class RunnerFactory:
    """Makes runners for the plugins of one host.

    Args:
        config: The host's.
        context: The ZMQ context to use, which is not ended here; None: make one.
    """

    def __init__(self, config: HostConfig, context: zmq.Context[Any] | None) -> None:
        self._config = config
        self._owns_context = context is None
        self._context = context
        self._children: Children | None = None
        self._shared = contextlib.ExitStack()
        self._tunnel = contextlib.ExitStack()

    def open(self) -> Link:
        """Make what is shared; returns what the plugins shall connect to.

        Raises:
            HostError: The ssh tunnel that the configuration asks for cannot be opened.
        """
        if self._context is None:
            self._context = make_context()
        return self._open_link(self._config, self._tunnel)

    def make(self, spec: PluginSpec, around: Surroundings, counters: Counters) -> Runner:
        """Make a runner of the kind that `spec` asks for; it is not started yet."""
        if not spec.isolate:
            return ThreadRunner(spec, around, counters)
        from .._isolated.process_runner import ProcessRunner

        if self._children is None:
            from .._isolated.pipes import Children

            self._children = self._shared.enter_context(Children())
        return ProcessRunner(spec, around, counters, self._children)

    @contextlib.contextmanager
    def moved(self, config: HostConfig) -> Iterator[Link]:
        """Connect to where `config` says; the way to the old place is kept until the block ends.

        Raises:
            HostError: There is no way to the new place; all stays as it was.
        """
        with contextlib.ExitStack() as undo:
            link = self._open_link(config, undo)
            old, self._tunnel = self._tunnel, undo.pop_all()
        with old:
            yield link

    def close(self, all_ended: bool) -> None:
        """Give everything back.

        Args:
            all_ended: Whether nothing that was made here runs any more; if not, what it may
                still use goes with the process.
        """
        self._shared.close()
        self._tunnel.close()
        if self._context is None:
            return
        if not all_ended:
            keep_context(self._context)
        elif self._owns_context:
            self._context.term()

    def _open_link(self, config: HostConfig, undo: contextlib.ExitStack) -> Link:
        if config.ssh_server:
            from .._wire.ssh_tunnel import open_tunnel

            shared = any(spec.host.uid is not None for spec in config.plugins)
            tunnel = open_tunnel(
                config.ssh_server, config.endpoint, config.pubsub_endpoint, self._context, shared
            )
            return undo.enter_context(tunnel)
        return Link(
            connectable(config.endpoint), connectable(config.pubsub_endpoint), self._context
        )
