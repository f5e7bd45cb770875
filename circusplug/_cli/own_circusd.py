# The circusd of `circusplug up`: it runs the watchers of the file, and takes commands at a place of
# its own, as the host takes them in its place (the door).
#
# Owner: the main thread starts and ends it; a reload has a thread of its own.

from __future__ import annotations

import contextlib
import os

from .. import _logs
from .._circusd.process import CircusdProcess, describe_status
from .._config.ini_for_circusd import flattened, sections_of_circusd
from .._config.ini_includes import Ini
from .._config.ini_syntax import expand
from .._config.specs import HostConfig
from .._control.places import circusd_endpoint_of
from .._host.arbiter import Arbiter


class OwnCircusd:
    """A circusd for the watchers of a file.

    Args:
        ini: The file as it was read.
        config: What was made of it.

    Attributes:
        private_endpoint: Where it takes commands, if not at the endpoint of the file; else None.
        endpoint_owner: To whom the endpoint of the file shall belong; empty: to who runs this.

    Raises:
        HostError: There is no place for the private endpoint.
        ConfigError: The file has errors.
    """

    def __init__(self, ini: Ini, config: HostConfig) -> None:
        self.private_endpoint = circusd_endpoint_of(ini.path) if config.door else None
        self.endpoint_owner = expand(ini.circus_option("endpoint_owner") or "", ini.variables())
        endpoint = self.private_endpoint or config.endpoint
        self._ends = f"endpoint = {endpoint}\npubsub_endpoint = {config.pubsub_endpoint}\n"
        self._sections = sections_of_circusd(ini)
        self._process = CircusdProcess(
            self._text(ini),
            source=ini.path,
            start_timeout=config.circusd_timeout,
            holds_back=True,
        )

    def start(self, stack: contextlib.ExitStack, arbiter: Arbiter) -> None:
        """Start it, to be stopped when `stack` is left; if it ends, so does the host.

        Raises:
            CircusdError: It does not start.
        """
        stack.callback(self._forget_endpoint)
        stack.enter_context(self._process)
        self._process.on_exit(lambda status: arbiter.fail(f"circusd {describe_status(status)}"))
        _logs.logger.info("circusd runs, process %s", self._process.pid)

    def let_go(self) -> None:
        """Let it start its watchers, now that the plugins see their events."""
        self._process.let_go()

    def reload(self, ini: Ini, arbiter: Arbiter) -> list[str]:
        """Have it read its sections, if they have changed; returns what was done, a line each.

        Raises:
            ConfigError: The file has errors.
            CallError: circusd refuses.
        """
        sections = sections_of_circusd(ini)
        if sections == self._sections:
            return []
        self._process.rewrite(self._text(ini))
        arbiter.client.call("reloadconfig", waiting=True)
        self._sections = sections  # not any sooner: a reload that failed is tried again
        return ["circusd has read the watchers again"]

    @property
    def has_quit(self) -> bool:
        """Whether it has ended because it was told to."""
        return self._process.has_quit

    def _forget_endpoint(self) -> None:
        """Remove its socket's file, which libzmq leaves."""
        if self.private_endpoint is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.private_endpoint.removeprefix("ipc://"))

    def _text(self, ini: Ini) -> str:
        # Of equal keys the first one counts. Its endpoints stay, whatever the file says later.
        return f"[circus]\n{self._ends}{flattened(ini)}"
