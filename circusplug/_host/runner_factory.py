# Makes the runners of a host, and holds what they share: the ZMQ context, the tunnel, a circusd
# of its own, the thread that reads what isolated plugins say.
#
# Owner: the supervising thread.

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zmq

from .._config.specs import HostConfig, PluginSpec
from .._errors import HostError
from .._plugin.status import Counters
from .._runners.runner import Runner, Surroundings
from .._runners.thread_runner import ThreadRunner
from .._wire.endpoints import Link, connectable
from .endpoint_check import EndpointCheck
from .program_client import ProgramClient
from .resources import keep_context, make_context

if TYPE_CHECKING:
    from .._circusd.embedded import EmbeddedCircusd
    from .._isolated.pipes import Pipes
    from .._wire.ssh_tunnel import Tunnel


class RunnerFactory:
    """Makes runners for the plugins of one host.

    Args:
        config: The host's.
        context: The ZMQ context to use, which is not ended here; None: make one.
        client: The program's, which is opened and closed with the way to circusd.
        circusd: The circusd to start and end; None: there is one.
        circusd_endpoint: Where circusd takes commands, if not where the configuration says.
        host_endpoint: Where the host takes commands; empty: nowhere.
        on_listening: See `OwnProcess`.

    Attributes:
        listening: To be done when every plugin sees circusd's events, or has had its chance to.
    """

    def __init__(
        self,
        config: HostConfig,
        context: zmq.Context[Any] | None,
        client: ProgramClient,
        circusd: EmbeddedCircusd | None = None,
        circusd_endpoint: str | None = None,
        host_endpoint: str = "",
        on_listening: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._owns_context = context is None
        self._context = context
        self._client = client
        self._circusd = circusd
        self._circusd_endpoint = circusd_endpoint
        self._host_endpoint = host_endpoint
        self._on_listening = on_listening
        self.listening: Future[None] = Future()
        self.listening.add_done_callback(self._let_circusd_go)
        self._pipes: Pipes | None = None
        self._shared = contextlib.ExitStack()
        self._tunnel: Tunnel | None = None
        self._check: EndpointCheck | None = None

    def open(
        self,
        on_up: Callable[[], object],
        on_failed: Callable[[str], object],
        on_quit: Callable[[], object],
    ) -> Link:
        """Make what is shared; returns what the plugins shall connect to, once it can be.

        Args:
            on_up: Called when it can be: at once, or when the ssh tunnel or the circusd that was
                asked for stands, on a thread of that.
            on_failed: Called with the reason if that does not come to stand, or circusd crashes,
                likewise.
            on_quit: Called if that circusd is told to quit.

        Raises:
            HostError: The tunnel or circusd cannot even be tried.
        """
        if self._context is None:
            self._context = make_context()

        def reachable() -> None:
            self._check_endpoints(self._config)
            on_up()

        self._tunnel = self._make_tunnel(self._config, reachable, on_failed)
        if self._tunnel is not None:
            self._tunnel.start()
            link = self._tunnel.link()
        else:
            link = self._link(self._config)
            if self._circusd is not None:
                self._circusd.start(reachable, on_failed, on_quit)
            else:
                reachable()
        self._client.open(link)
        return link

    def make(
        self, spec: PluginSpec, around: Surroundings, counters: Counters, state: Any
    ) -> Runner:
        """Make a runner of the kind that `spec` asks for; it is not started yet.

        `state` is what another of that kind has saved, or None.

        Raises:
            HostError: The user that it runs as cannot get into the tunnel.
        """
        link = replace(around.link, host=self._host_endpoint)
        if not spec.isolate:
            return ThreadRunner(spec, replace(around, link=link), counters, state)
        from .._isolated.process_runner import ProcessRunner

        if self._pipes is None:
            from .._isolated.pipes import Pipes

            self._pipes = self._shared.enter_context(Pipes())
        if self._tunnel is not None and spec.host.uid is not None:
            link = replace(self._tunnel.link(spec.host.uid), host=link.host)
        elif link.door and spec.host.uid is not None:
            # Nobody else gets into the directory in which circusd takes commands.
            link = replace(link, endpoint=link.door)
        return ProcessRunner(spec, replace(around, link=link), counters, self._pipes, state)

    def check_users(self, specs: Iterable[PluginSpec]) -> None:
        """Refuse plugins that run as a user who cannot get into the tunnel; from any thread.

        Raises:
            HostError: There is such a plugin.
        """
        for spec in specs:
            if self._tunnel is not None and spec.active and spec.host.uid is not None:
                try:
                    self._tunnel.link(spec.host.uid)
                except HostError as error:
                    raise HostError(f"{spec.place}: {error}") from None

    @contextlib.contextmanager
    def moved(self, config: HostConfig) -> Iterator[Link]:
        """Connect to where `config` says; the way to the old place is kept until the block ends.

        Raises:
            HostError: There is no way to the new place; all stays as it was.
        """
        new = self._make_tunnel(config)
        if new is not None:
            new.start()
            try:
                new.wait()
            except BaseException:
                new.close()
                raise
        old, self._tunnel = self._tunnel, new
        self._check_endpoints(config)
        try:
            link = new.link() if new is not None else self._link(config)
            self._client.move(link)
            yield link
        finally:
            if old is not None:
                old.close()

    def _let_circusd_go(self, listening: Future[None]) -> None:
        if listening.exception() is not None:
            return  # the host stops
        if self._circusd is not None:
            self._circusd.let_go()
        self._on_listening()

    def close(self, all_ended: bool) -> None:
        """Give everything back.

        Args:
            all_ended: Whether nothing that was made here runs any more; if not, what it may
                still use goes with the process.
        """
        self._shared.close()
        self._client.close()
        if self._circusd is not None:
            self._circusd.close()
        if self._tunnel is not None:
            self._tunnel.close()
        if self._check is not None:
            self._check.close()
        if self._context is None:
            return
        if not all_ended:
            keep_context(self._context)
        elif self._owns_context:
            self._context.term()

    def _make_tunnel(
        self,
        config: HostConfig,
        on_up: Callable[[], object] = lambda: None,
        on_failed: Callable[[str], object] = lambda _: None,
    ) -> Tunnel | None:
        if not config.ssh_server:
            return None
        from .._wire.ssh_tunnel import Tunnel

        server, ends = config.ssh_server, (config.endpoint, config.pubsub_endpoint)
        uids = [spec.host.uid for spec in config.plugins if spec.host.uid is not None]
        return Tunnel(
            server,
            *ends,
            self._context,
            uids,
            on_up=on_up,
            on_failed=lambda why: on_failed(f"no ssh tunnel through {server}: {why}"),
        )

    def _check_endpoints(self, config: HostConfig) -> None:
        """Have it told if circusd is not where `config` says; there is a way to that place."""
        if self._check is not None:
            self._check.close()
        link = self._link(config) if self._tunnel is None else self._tunnel.link()
        self._check = EndpointCheck(link, config.endpoint, config.pubsub_endpoint)
        self._check.start()

    def _link(self, config: HostConfig) -> Link:
        link = Link(
            connectable(config.endpoint), connectable(config.pubsub_endpoint), self._context
        )
        if self._circusd_endpoint is None:
            return link
        return replace(link, endpoint=self._circusd_endpoint, door=link.endpoint)
