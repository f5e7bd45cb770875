# A process that receives events or makes calls in one of the ways compared:
#
#   bare    a SUB socket and `recv(); recv()`; a DEALER with JSON, an id and a poll
#   ours    a plugin under a real Arbiter
#   circus  a plugin of Circus, started as its own circus-plugin does
#   client  Circus's CircusClient, calls only
#
# What can be measured from outside is measured there; what cannot is printed as a line of JSON.

from __future__ import annotations

import importlib
import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

Handler = Callable[[Any, Any], None]

#: How an event counter lies in its file.
COUNTER = struct.Struct("q")


def main(kind: str, mode: str, pubsub: str, endpoint: str, *options: str) -> None:
    """Be a contender until killed."""
    if kind in ("ours", "circus"):
        run_plugin(kind, mode, pubsub, endpoint, options)
    else:
        {"bare": run_bare, "client": run_client}[kind](mode, pubsub, endpoint, options)


def tell(**facts: Any) -> None:
    """Say something to the bench."""
    print(json.dumps(facts), flush=True)


def tell_ready() -> None:
    """Say that events can be received, and on which thread they will be."""
    tell(thread=threading.get_native_id())


# The handlers, as methods: *plugin* is what has `split_data`, `load_message` and `call`.


def receive(plugin: Any, data: Any) -> None:
    """Do nothing."""


def decode(plugin: Any, data: Any) -> None:
    """Do what nearly every plugin does."""
    _watcher, _action, message = plugin.split_data(data)
    plugin.load_message(message)


def take_time(count: str) -> Handler:
    """Note the age of each event; tell all after *count*."""
    ages: list[int] = []

    def handle(_plugin: Any, data: Any) -> None:
        ages.append(time.monotonic_ns() - int(data[1][9:-1]))
        if len(ages) == int(count):
            tell(ages=ages)
            ages.clear()

    return handle


def block_and_count(path: str, seconds: str) -> Handler:
    """Block at the first event, then count, in a file that the bench can read meanwhile."""
    memory = mmap.mmap(os.open(path, os.O_RDWR), COUNTER.size)
    counted = 0

    def handle(_plugin: Any, _data: Any) -> None:
        nonlocal counted
        counted += 1
        if counted == 1:
            time.sleep(float(seconds))
        COUNTER.pack_into(memory, 0, counted)

    return handle


def make_calls(count: str) -> Handler:
    """Make a number of calls at each event and tell what they cost in CPU and time."""

    def handle(plugin: Any, _data: Any) -> None:
        call = plugin.call
        for _ in range(100):
            call("numprocesses", name="web")
        trips = []
        cpu = time.process_time()
        for _ in range(int(count)):
            began = time.perf_counter()
            call("numprocesses", name="web")
            trips.append(time.perf_counter() - began)
        tell(cpu=(time.process_time() - cpu) / int(count), trips=trips)

    return handle


def make_handler(mode: str, options: tuple[str, ...]) -> Handler:
    """Return the method that a mode is about."""
    if mode in ("receive", "decode"):
        return {"receive": receive, "decode": decode}[mode]
    makers = {"latency": take_time, "burst": block_and_count, "calls": make_calls}
    return makers[mode](*options)


# The four ways.


def _subscribe(pubsub: str) -> Any:
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"watcher.")
    socket.connect(pubsub)
    tell_ready()
    return socket


def run_bare(mode: str, pubsub: str, endpoint: str, options: tuple[str, ...]) -> None:
    """Receive with nothing but pyzmq."""
    handle, caller = make_handler(mode, options), BareCaller(endpoint)
    recv = _subscribe(pubsub).recv
    while mode == "receive":
        recv()
        recv()
    while mode == "decode":
        _, _watcher, _action = recv().decode().split(".")
        json.loads(recv())
    while True:
        handle(caller, (recv(), recv()))


class BareCaller:
    """The least that a call with an id and a deadline takes."""

    def __init__(self, endpoint: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.connect(endpoint)
        self._last_id = 0

    def call(self, command: str, **properties: Any) -> Any:
        """Send a command and wait for its reply, 5 s at most."""
        self._last_id += 1
        request = {"id": self._last_id, "command": command, "properties": properties}
        self._socket.send(json.dumps(request).encode())
        while self._socket.poll(5000):
            reply = json.loads(self._socket.recv())
            if reply["id"] == self._last_id:
                return reply
        raise TimeoutError


def run_client(mode: str, pubsub: str, endpoint: str, options: tuple[str, ...]) -> None:
    """Make calls with Circus's client for programs."""
    from circus.client import CircusClient

    class Caller:
        def __init__(self) -> None:
            self._client = CircusClient(endpoint=endpoint)

        def call(self, command: str, **properties: Any) -> Any:
            return self._client.send_message(command, **properties)

    handle, caller = make_handler(mode, options), Caller()
    recv = _subscribe(pubsub).recv
    while True:
        handle(caller, (recv(), recv()))


def run_plugin(kind: str, mode: str, pubsub: str, endpoint: str, options: tuple[str, ...]) -> None:
    """Receive as a plugin of circusplug, or of Circus."""
    module = importlib.import_module("circusplug" if kind == "ours" else "circus.plugins")

    class Plugin(module.CircusPlugin):
        name = "contender"
        handle_recv = make_handler(mode, options)

        def initialize(self) -> None:
            super().initialize()
            tell_ready()

    if kind == "ours":
        module.Arbiter([Plugin], endpoint, pubsub).start()
    else:
        Plugin(endpoint, pubsub, 5.0).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
