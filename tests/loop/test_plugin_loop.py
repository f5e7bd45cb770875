# How the loop starts, stops and closes, and what runs on it: asyncio's own things and Tornado's.

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from loop_runs import run
from patience import PATIENCE

from circusplug._loop.plugin_loop import PluginLoop


def test_run_sync_runs_functions_and_coroutines_to_their_end(loop: PluginLoop) -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    def fail() -> None:
        raise ZeroDivisionError

    assert loop.run_sync(lambda: "now") == "now"
    assert loop.run_sync(later) == "later"
    with pytest.raises(ZeroDivisionError):
        loop.run_sync(fail)
    with pytest.raises(asyncio.TimeoutError):
        loop.run_sync(never, timeout=0.001)
    # As in handle_init, where the loop is the running one in name.
    assert loop.call_directly(loop.run_sync, later) == "later"


def test_run_sync_leaves_the_running_loop_as_it_was(loop: PluginLoop) -> None:
    async def later() -> None:
        await asyncio.sleep(0)

    def as_handle_init() -> asyncio.AbstractEventLoop:
        loop.run_sync(later)
        return asyncio.get_running_loop()

    assert loop.call_directly(as_handle_init) is loop


def test_start_and_stop_may_alternate_and_close_may_be_repeated(loop: PluginLoop) -> None:
    for _ in range(3):
        loop.add_callback(loop.stop)
        loop.start()
    loop.stop()  # before a start: it runs what is there, once, and stops
    loop.start()
    loop.close()
    loop.close()
    assert loop.is_closed()
    loop.stop_threadsafe()
    assert loop.post(print) is False
    loop.remove_handler(0)


def test_closing_a_running_loop_stops_it(loop: PluginLoop) -> None:
    loop.add_callback(loop.close)
    run(loop)
    assert not loop.is_closed()


def test_a_loop_becomes_and_ceases_to_be_the_current_one(loop: PluginLoop) -> None:
    loop.clear_current()
    loop.make_current()
    assert asyncio.get_event_loop_policy().get_event_loop() is loop


def test_asyncio_streams_work(loop: PluginLoop) -> None:
    payload = bytes(1000) * 1000  # more than fits into the kernel's buffers

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(payload)))
        await writer.drain()
        writer.close()

    async def talk() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(payload)
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            return received

    assert loop.run_until_complete(asyncio.wait_for(talk(), PATIENCE)) == payload


def test_work_on_another_thread_is_awaited(loop: PluginLoop) -> None:
    async def work() -> str:
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert loop.run_until_complete(work()) != threading.current_thread().name
    loop.run_until_complete(loop.shutdown_default_executor())


def test_tornado_finds_the_loop_and_forgets_it_when_it_closes(loop: PluginLoop) -> None:
    ioloop = pytest.importorskip("tornado.ioloop")
    seen: list[Any] = []

    def note() -> None:
        seen.append(asyncio.get_running_loop())
        periodic.stop()
        loop.stop()

    periodic = ioloop.PeriodicCallback(note, 1)
    loop.call_directly(periodic.start)  # as in handle_init
    run(loop)
    assert seen == [loop]
    known = ioloop.IOLoop._ioloop_for_asyncio
    assert loop in known
    loop.close()
    assert loop not in known


def test_call_directly_makes_the_loop_the_running_one_for_a_call(loop: PluginLoop) -> None:
    assert loop.call_directly(asyncio.get_running_loop) is loop
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.call_directly(fail)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
