# What a host tells of its plugins: asked for by `stats`, at its control endpoint.
#
# Owner: the plugin's thread; a connection lasts as long as a question, so nothing is left to close.

from __future__ import annotations

import contextlib
import os
from typing import Any

import zmq

from circusplug import CallError, CallTimeout, CircusPlugin
from circusplug._control.places import is_alive
from circusplug._plugin.client import Client
from circusplug._plugin.status import Counters
from circusplug._wire.endpoints import connectable

from ._watchers import PLUGIN

Figures = dict[str, dict[str, Any]]


class HostFigures:
    """Asks a host for its plugins' figures.

    Args:
        plugin: Who asks.
        endpoint: Where the host takes commands; empty: there is none to ask.
    """

    def __init__(self, plugin: CircusPlugin, endpoint: str) -> None:
        self._plugin = plugin
        self._endpoint = endpoint
        self._told = False

    async def ask(self, timeout: float) -> Figures:
        """The figures by the plugins' names; none if it does not answer in so many seconds."""
        if not self._endpoint:
            return {}
        path = self._endpoint.removeprefix("ipc://")
        if path != self._endpoint and not (os.access(path, os.W_OK) and is_alive(path)):
            return self._left_out("nobody listens there, or not to this user")
        try:
            reply = await self._call("stats", timeout)
        except CallTimeout:
            return self._left_out(f"no reply in {timeout:g} s")
        except (CallError, zmq.ZMQError) as error:  # no descriptor is left, for one
            return self._left_out(str(error))
        self._told = False
        return plugins_in(reply.get("infos"))

    async def _call(self, command: str, timeout: float) -> dict[str, Any]:
        worker, endpoint = self._plugin._circusplug_worker, connectable(self._endpoint)
        # Counted apart: the plugin's own counters are about circusd.
        client = Client(
            worker.loop, lambda: worker.make_dealer(endpoint), Counters(), self._plugin.logger
        )
        with contextlib.closing(client):
            client.open()
            return await client.call_async(command, {}, timeout)

    def _left_out(self, why: str) -> Figures:
        if not self._told:
            text = "the figures of the host at %s are left out: %s"
            self._plugin.logger.info(text, self._endpoint, why)
        self._told = True
        return {}


def plugins_in(infos: Any) -> Figures:
    """Those of a host's plugins among what `stats` tells; circusd's own say less."""
    found: Figures = {}
    for name, info in infos.items() if isinstance(infos, dict) else ():
        for one in info.values() if name.startswith(PLUGIN) and isinstance(info, dict) else ():
            if isinstance(one, dict) and "received" in one:
                found[name.removeprefix(PLUGIN)] = one
    return found
